"""One run of a study in a process of its own: under its lock, from its last checkpoint, its end recorded."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path

from deq_collapse.files import write_atomically
from deq_collapse.study.grid import Cell, StudyFile
from deq_collapse.study.state import LOG, RESULT, TRACEBACK, lock, now, read_state, write_state

ELSEWHERE = 75
"""Exit code of a process that found its run at work in another."""


def arguments(study: StudyFile, cell: Cell) -> list[str]:
    """The command line of a cell's run."""
    args = ["fit"]
    for config in cell.configs:
        args += ["--config", config]
    args += ["--name", cell.name, "--study", study.name, "--axes", json.dumps(cell.axes)]
    return [*args, "--trainer.default_root_dir", str(study.directory / cell.name), "--ckpt_path", "last"]


def run_cell(directory: Path, args: Sequence[str]) -> bool:
    """Runs a cell unless another process is at it; gives whether it was free.

    An error is recorded with its reason and its traceback, and goes no further.
    """
    with lock(directory) as free:
        if not free or (directory / RESULT).exists():
            return free
        before = read_state(directory).get("seconds", 0.0)
        start = now()
        write_state(directory, "running", started=start, seconds=before, reason=None)
        try:
            _fit(args)
        except (KeyboardInterrupt, SystemExit):
            write_state(directory, "interrupted", seconds=before + now() - start)
            raise
        except Exception as error:
            traceback.print_exc()
            write_atomically(directory / TRACEBACK, traceback.format_exc())
            reason = f"{type(error).__name__}: {error}"
            write_state(directory, "failed", seconds=before + now() - start, reason=reason)
        else:
            (directory / TRACEBACK).unlink(missing_ok=True)
            write_state(directory, "finished", seconds=before + now() - start)
    return True


def _fit(args: Sequence[str]) -> None:
    from deq_collapse.lightning_cli import lightning_main

    lightning_main(args)


def worker(directory: Path, args: Sequence[str], threads: int | None) -> None:
    """The main function of a process that runs one cell: what it prints goes to the cell's log."""
    os.setsid()  # a Ctrl-C at the terminal is the parent's to pass on
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    directory.mkdir(parents=True, exist_ok=True)
    log = os.open(directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(log, stream)
    if threads is not None:
        import torch

        os.environ["OMP_NUM_THREADS"] = str(threads)  # for further ranks of the run
        torch.set_num_threads(threads)
    sys.exit(0 if run_cell(directory, args) else ELSEWHERE)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(os.getpgid(0), signal.SIGKILL)  # what was saved is whole; the next start goes on from it
