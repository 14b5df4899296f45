"""One run of a study in its own process: under its lock, from its last checkpoint, with its end recorded."""

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

from deq_collapse.config.files import sentence
from deq_collapse.errors import RankLost, UserError
from deq_collapse.files import write_atomically
from deq_collapse.runs.files import RESULT
from deq_collapse.study.plan import Planned
from deq_collapse.study.progress import progress
from deq_collapse.study.state import LOG, TRACEBACK, lock, read_state, write_state

ELSEWHERE = 75
"""Exit code of a process whose run is already running in another."""


def run_cell(directory: Path, cell: Planned, args: Sequence[str], retry: bool = False) -> bool:
    """Runs a cell unless another process is running it; returns whether it was free.

    A finished cell, or a failed one without ``retry``, is left unchanged. An error is recorded with its
    reason and traceback, and is not raised.
    """
    with lock(directory) as free:
        failed = read_state(directory).get("state") == "failed"
        if not free or (directory / RESULT).exists() or (failed and not retry):
            return free
        start = time.time()
        first = progress(directory).epoch
        ended = {"seconds": None, "reason": None}  # of an earlier attempt
        write_state(directory, "running", hash=cell.hash, started=start, first_epoch=first, **ended)
        try:
            _fit(args)
        except (KeyboardInterrupt, SystemExit):
            write_state(directory, "interrupted", seconds=time.time() - start)
            raise
        except RankLost as error:
            print(error, file=sys.stderr)
            write_state(directory, "interrupted", seconds=time.time() - start, reason=sentence(str(error)))
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
    from deq_collapse.config.run import lightning_main

    lightning_main(args)


def worker(directory: Path, cell: Planned, args: Sequence[str], retry: bool, threads: int | None) -> None:
    """The main function of a process that runs one cell."""
    os.setsid()  # the parent passes on a Ctrl-C of the terminal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log_to(directory)
    if threads is not None:
        import torch

        os.environ["OMP_NUM_THREADS"] = str(threads)  # for further ranks of the run
        torch.set_num_threads(threads)
    sys.exit(0 if run_cell(directory, cell, args, retry) else ELSEWHERE)


def log_to(directory: Path) -> None:
    """Appends what this process and its children print to a run's log."""
    directory.mkdir(parents=True, exist_ok=True)
    log = os.open(directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(log, number)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(os.getpgid(0), signal.SIGKILL)  # saved files are complete; the next start continues
