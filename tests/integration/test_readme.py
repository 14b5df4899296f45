"""Every example of the README runs as it stands there."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from deq_collapse.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OWN = README[README.index("## Your own parts") : README.index("## Only the metrics")]
EXAMPLES = re.findall(r"```python\n# (\w+)\.py\n(.*?)```\n\n```bash\n(.*?)```", OWN, flags=re.DOTALL)


def test_there_is_an_example_of_each_part():
    assert [name for name, _, _ in EXAMPLES] == ["my_encoder", "my_cell", "my_loss", "my_data"]


@pytest.mark.parametrize(("module", "code", "command"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_a_part_of_ones_own_is_a_few_lines_and_a_run(module, code, command, tmp_path, monkeypatch):
    # conf/ and the file lie in the working directory, as for the reader.
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    args = shlex.split(command.replace("\\\n", " "))
    assert args.pop(0) == "deq-collapse"
    assert main([*args, "--trainer.max_epochs", "1"]) == 0
    name = args[args.index("--name") + 1]
    assert (tmp_path / "outputs" / "runs" / name / "result.json").exists()


def test_the_metrics_serve_a_plain_loop(capsys):
    section = README[README.index("## Only the metrics") :]
    code = re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert code
    torch.manual_seed(0)
    exec(code[1], {})
    line = r"{}: NC1 \d+\.\d{{3}}, distance to the simplex ETF \d\.\d{{3}}\n"
    assert re.fullmatch(line.format("train") + line.format("test"), capsys.readouterr().out)


def test_every_file_the_readme_names_exists():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    configs = re.findall(r"\bconf/[\w/]+\.yaml", README)
    assert len(configs) > 5
    for path in links + configs:
        assert (ROOT / path).exists(), path
