"""One run of a study in a process of its own: under its lock, from its last checkpoint, its end recorded."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path

from deq_collapse.config_files import sentence
from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically
from deq_collapse.study.plan import Planned
from deq_collapse.study.progress import progress
from deq_collapse.study.state import LOG, RESULT, TRACEBACK, lock, write_state

ELSEWHERE = 75
"""Exit code of a process that found its run at work in another."""


def run_cell(directory: Path, cell: Planned, args: Sequence[str]) -> bool:
    """Runs a cell unless another process is at it; gives whether it was free.

    An error is recorded with its reason and its traceback, and goes no further.
    """
    with lock(directory) as free:
        if not free or (directory / RESULT).exists():
            return free
        start = time.time()
        first = progress(directory).epoch
        write_state(directory, "running", hash=cell.hash, started=start, first_epoch=first, reason=None)
        try:
            _fit(args)
        except (KeyboardInterrupt, SystemExit):
            write_state(directory, "interrupted", seconds=time.time() - start)
            raise
        except Exception as error:
            traceback.print_exc()
            write_atomically(directory / TRACEBACK, traceback.format_exc())
            reason = sentence(str(error)) if isinstance(error, UserError) else _reason(error)
            write_state(directory, "failed", seconds=time.time() - start, reason=reason)
        else:
            (directory / TRACEBACK).unlink(missing_ok=True)
            write_state(directory, "finished", seconds=time.time() - start)
    return True


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {sentence(str(error))}"


def _fit(args: Sequence[str]) -> None:
    from deq_collapse.lightning_cli import lightning_main

    lightning_main(args)


def worker(directory: Path, cell: Planned, args: Sequence[str], threads: int | None) -> None:
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
    sys.exit(0 if run_cell(directory, cell, args) else ELSEWHERE)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(os.getpgid(0), signal.SIGKILL)  # what was saved is whole; the next start goes on from it
