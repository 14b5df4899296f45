"""Runs what is missing of a study in local processes: finished runs are kept, interrupted ones go on."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NoReturn

from deq_collapse.study.display import Display
from deq_collapse.study.grid import Cell, StudyFile
from deq_collapse.study.identity import check_same, resolve
from deq_collapse.study.results import write_results
from deq_collapse.study.state import lock, read_state, state_of, write_state
from deq_collapse.study.work import ELSEWHERE, arguments, worker

GRACE = 15.0
"""Seconds in which interrupted processes may end by themselves."""
LOOK = 1.0
"""Seconds between two looks at how far the runs are."""


def check_study(study: StudyFile) -> None:
    """Resolves the configuration of every cell, and compares it with the run that lies in its directory.

    Raises:
        UserError: for the first that is wrong, or another one; nothing is written.
    """
    for cell in study.cells:
        check_same(study.directory / cell.name, resolve(arguments(study, cell)))


def run_study(study: StudyFile, command: str, jobs: int = 1, retry: bool = False) -> None:
    """Runs what is missing, ``jobs`` cells at a time, and keeps ``results.json`` up to date.

    A run that fails is recorded with its reason, and the others go on; it is run again where ``retry`` says
    so. Cells at work in another process are left to it.

    Raises:
        KeyboardInterrupt, SystemExit: when interrupted; all processes have ended then.
    """
    threads = None if jobs == 1 or "OMP_NUM_THREADS" in os.environ else max(1, _cores() // jobs)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deq_collapse.lightning_cli"])
    waiting = list(reversed(study.cells))
    running: dict[int, tuple[Cell, BaseProcess]] = {}
    with Display(study) as display, _sigterm_as_exit():
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    cell = waiting.pop()
                    if _skipped(study, cell, retry, display):
                        continue
                    args = (study.directory / cell.name, arguments(study, cell), threads)
                    process: BaseProcess = context.Process(target=worker, args=args, name=cell.name)
                    process.start()
                    running[process.sentinel] = (cell, process)
                    display.started(cell)
                for sentinel in wait(list(running), timeout=LOOK):
                    assert isinstance(sentinel, int)
                    cell, process = running.pop(sentinel)
                    process.join()
                    _record_end(study, cell, process)
                    display.ended(cell, elsewhere=process.exitcode == ELSEWHERE)
                    write_results(study, command)
                display.look()
        except BaseException:
            _end([process for _, process in running.values()])
            raise
        finally:
            write_results(study, command)


def _skipped(study: StudyFile, cell: Cell, retry: bool, display: Display) -> bool:
    """Whether a cell is not to be run, which is told."""
    state = state_of(study.directory / cell.name)
    skipped = state in ("finished", "running") or (state == "failed" and not retry)
    if skipped:
        display.skipped(cell, state)
    return skipped


def _record_end(study: StudyFile, cell: Cell, process: BaseProcess) -> None:
    """Tells a run whose process was killed from the others, for it could not do so itself."""
    directory = study.directory / cell.name
    code = process.exitcode or 0
    if code in (0, ELSEWHERE) or read_state(directory).get("state") in ("failed", "interrupted"):
        return
    reason = f"its process was killed by {signal.Signals(-code).name}" if code < 0 else "its process ended"
    with lock(directory) as free:
        if free:
            write_state(directory, "interrupted", reason=reason)


def _end(processes: Sequence[BaseProcess]) -> None:
    """Interrupts the processes and their children, and kills those that do not end."""
    for process in processes:
        _signal(process, signal.SIGINT)
    for process in processes:
        process.join(GRACE)
    for process in processes:
        _signal(process, signal.SIGKILL)
        process.join()


def _signal(process: BaseProcess, number: signal.Signals) -> None:
    # Its group, which holds further ranks of its run; before the process has made one, itself.
    if process.pid is None or process.exitcode is not None:
        return
    with suppress(ProcessLookupError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Ends the runs before the program, where it is asked to end."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
