"""A run that is killed again and again, at moments over its whole life, and taken up each time, ends in the
bits of a run that nobody disturbed.

By default each kind of run is killed once in training and once while it writes its end; with
DEQ_COLLAPSE_KILLS=20, twenty times at all moments of `MOMENTS`, which takes some minutes.
"""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from deq_collapse.cli import main

KILLS = int(os.environ.get("DEQ_COLLAPSE_KILLS", "2"))
EPOCHS = 6
WARM = ["--trainer.callbacks+", "deq_collapse.callbacks.WarmStarts"]
JACOBIAN = ["--model.refinement.init_args.jacobian_weight", "0.1"]  # draws random numbers
RUNS = {
    "explicit": ("explicit", []),
    "equilibrium": ("equilibrium", JACOBIAN),
    "warm": ("equilibrium", WARM),
    "double": ("explicit", ["--trainer.precision", "64-true"]),
}
LIMIT = 300
"""Seconds in which what a kill waits for has happened."""


class Start:
    """A start of a run in a process of its own; one with its imports done already, unless it is to be killed
    in them.
    """

    def __init__(self, args: list[str], importing: bool) -> None:
        self._ended: Callable[[], int | None]
        if importing:
            command = [sys.executable, "-m", "deq_collapse.cli", *args]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            program = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet)
            self.pid, self._ended = program.pid, program.poll
        else:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["deq_collapse.config.run"])
            process = context.Process(target=in_one_thread, args=(args,))
            process.start()
            assert process.pid
            self.pid, self._ended = process.pid, lambda: process.exitcode

    def until(self, happened: Callable[[], bool]) -> None:
        """Waits for something to happen, or for the run to end before."""
        start = time.monotonic()
        while self._ended() is None and not happened():
            assert time.monotonic() - start < LIMIT
            time.sleep(0.001)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.until(lambda: False)


def in_one_thread(args: list[str]) -> None:
    """Sums in another order would have other last bits."""
    torch.set_num_threads(1)
    sys.exit(main(args))


def changed(path: Path) -> Callable[[], bool]:
    """Whether a file has been written since now."""

    def stamp() -> int | None:
        return path.stat().st_mtime_ns if path.exists() else None

    before = stamp()
    return lambda: stamp() not in (None, before)


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


MOMENTS: dict[str, Callable[[Start, Path, random.Random, float], None]] = {
    "importing": lambda start, _, draw, seconds: start.until(after(draw.uniform(0, 5))),
    "training or measuring": lambda start, run, draw, seconds: (
        start.until(changed(run / "history.csv")),
        start.until(after(draw.uniform(0, seconds / 2))),
    ),
    "saving": lambda start, run, *_: start.until((run / "last.ckpt.part").exists),
    "recording": lambda start, run, draw, seconds: (
        start.until(changed(run / "along.csv")),
        start.until(after(draw.uniform(0, 0.1))),
    ),
}
"""Waits for a moment of a run, each; the seconds are from an undisturbed run's first epoch to its end."""


def moments(draw: random.Random) -> list[str]:
    """Those at which a run is killed, one after the other; the last ends it, so it comes once."""
    if len(MOMENTS) > KILLS:
        return ["training or measuring", "recording"][-KILLS:]
    some = [name for name in MOMENTS if name != "recording"]
    return [draw.choice(some) for _ in range(KILLS - 3)] + ["recording"] * 3


@pytest.mark.parametrize("kind", RUNS)
def test_whatever_kills_a_run_its_end_is_that_of_an_undisturbed_one(kind, small_fit, tmp_path: Path):
    refinement, more = RUNS[kind]
    whole, killed = (tmp_path / name for name in ("whole", "killed"))
    epochs = max(EPOCHS, KILLS)
    undisturbed = Start(small_fit(whole, *more, refinement=refinement, epochs=epochs), importing=False)
    undisturbed.until((whole / "history.csv").exists)
    began = time.monotonic()
    undisturbed.until((whole / "result.json").exists)
    seconds = time.monotonic() - began
    undisturbed.until(lambda: False)
    args, draw = small_fit(killed, *more, refinement=refinement, epochs=epochs), random.Random(kind)
    disturbed = 0
    for moment in moments(draw):
        start = Start([*args, "--ckpt_path", "last"], importing=moment == "importing")
        MOMENTS[moment](start, killed, draw, seconds)
        start.kill()
        disturbed += not (killed / "result.json").exists()
    assert disturbed
    if not (killed / "result.json").exists():
        Start([*args, "--ckpt_path", "last"], importing=False).until(lambda: False)
    a, b = (torch.load(run / "last.ckpt", weights_only=True)["state_dict"] for run in (whole, killed))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    for name in ("history.csv", "along.csv", "confusion.csv"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    assert (killed / "result.json").exists()
