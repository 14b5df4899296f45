"""A disk that is full, or that can be written no more: one sentence, and the run goes on from its last
checkpoint to the same bits.
"""

import multiprocessing
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from deq_collapse.callbacks import damage
from deq_collapse.cli import main

SMALLER = 5_000
"""Bytes that the last checkpoint lacks of room; those before it are smaller, for history grows."""
UNWRITTEN = {"result.json", "geometry.npz", "along.csv", "confusion.csv"}


def in_little_room(args: list[str], said: Path, room: int | None) -> None:
    """A process whose files have so many bytes at most; writing more fails as on a full disk."""
    torch.set_num_threads(1)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    if room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    sys.exit(main(args))


@pytest.fixture
def run(tmp_path: Path):
    def start(args: list[str], room: int | None = None) -> tuple[int | None, str]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["deq_collapse.config.run"])
        said = tmp_path / "said.txt"
        said.unlink(missing_ok=True)
        process = context.Process(target=in_little_room, args=(args, said, room))
        process.start()
        process.join()
        return process.exitcode, said.read_text()

    return start


def test_a_checkpoint_without_room_is_told_and_the_one_before_goes_on(run, small_fit, tmp_path: Path):
    whole, full = tmp_path / "whole", tmp_path / "full"
    args = small_fit(full, epochs=4)
    assert run(small_fit(whole, epochs=4)) == (0, "")
    code, said = run(args, (whole / "last.ckpt").stat().st_size - SMALLER)
    assert (code, said.count("\n")) == (2, 1)
    assert "last.ckpt cannot be written: File too large; once that is put right" in said
    assert {path.name for path in full.iterdir()} == {path.name for path in whole.iterdir()} - UNWRITTEN
    assert run([*args, "--ckpt_path", "last"]) == (0, "")
    a, b = (torch.load(path / "last.ckpt", weights_only=True)["state_dict"] for path in (whole, full))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (whole / "history.csv").read_bytes() == (full / "history.csv").read_bytes()


def test_a_directory_that_becomes_read_only_is_told_and_its_checkpoint_kept(small_fit, tmp_path: Path):
    run = tmp_path / "run"
    # Root may write everywhere, unless it gives that up.
    user = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    command = [*user, sys.executable, "-m", "deq_collapse.cli", *small_fit(run, epochs=500)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (run / "previous.ckpt").exists():
            assert process.poll() is None, "the run ended before its directory could be closed"
            time.sleep(0.01)
        run.chmod(0o555)
        said = process.communicate()[1]
    run.chmod(0o755)
    assert (process.returncode, said.count("\n")) == (2, 1)
    assert "cannot be written: Permission denied" in said
    assert damage(run / "last.ckpt") is None
