"""Tab completion, by a real bash: by its completion function, and at a prompt with the key itself."""

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from deq_collapse.cli import main

TRY = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
_shtab_deq_collapse deq-collapse "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "completion.sh"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("stu", ["study"]),
        ("study wa", ["watch"]),
        ("study run --jo", ["--jobs"]),
        ("fit --trainer.max_", ["--trainer.max_epochs", "--trainer.max_steps", "--trainer.max_time"]),
        ("fit --config conf/data/dig", ["conf/data/digits.yaml"]),
        ("fit --config conf/run/digits.yaml --config own.", ["own.yaml"]),
        ("study run conf/study/dem", ["conf/study/demo.yaml"]),
        ("theory cu", ["curve"]),
        ("conf da", ["data"]),
        ("init own", ["own_folder"]),
    ],
)
def test_bash_offers_commands_options_and_configurations(
    typed: str, offered: list[str], script: Path, tmp_path: Path
) -> None:
    (tmp_path / "own_folder").mkdir()
    (tmp_path / "own.yaml").touch()  # beside it there is no conf/: shipped names complete anywhere
    text = TRY.format(script=script, words=" ".join(f"'{word}'" for word in ["deq-collapse", *typed.split()]))
    done = subprocess.run(["bash", "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered


def test_the_tab_key_completes_at_a_prompt(script: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("bash", ["bash", "--noprofile", "--norc", "-i"])
    try:
        os.write(terminal, f"source {script}; echo rea''dy\n".encode())
        assert "ready" in _printed(terminal, "ready")
        os.write(terminal, b"deq-collapse study stat\t")
        assert "study status" in _printed(terminal, "study status")
        os.write(terminal, b"\x03exit\n")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def _printed(terminal: int, awaited: str, seconds: float = 60) -> str:
    """What the terminal shows until something is there."""
    shown, until = "", time.monotonic() + seconds
    while awaited not in shown and time.monotonic() < until:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown
