"""Runs the missing cells of a study in local processes: finished runs are kept, interrupted ones continue."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NoReturn

from deq_collapse.errors import UserError
from deq_collapse.study.display import Display
from deq_collapse.study.grid import StudyFile
from deq_collapse.study.plan import Plan, Planned, arguments, write_plan
from deq_collapse.study.results import write_results
from deq_collapse.study.state import is_missing, lock, state_of, write_state
from deq_collapse.study.work import ELSEWHERE, worker

GRACE = 15.0
"""Seconds that interrupted processes have to end by themselves."""
LOST = 255
"""Exit code reported by multiprocessing if the process that starts the others was killed."""
LOOK = 1.0
"""Seconds between two looks at the progress of the runs."""


def plan_study(study: StudyFile, command: str) -> Plan:
    """Checks every cell in a separate process, and writes ``study.json``.

    Raises:
        UserError: for the first mistake; nothing is written.
    """
    receive, send = multiprocessing.Pipe(duplex=False)
    process = _context().Process(target=_check, args=(study, send))
    try:
        _start_server()  # which ignores Ctrl-C: this process ends the one that checks
        process.start()
        send.close()
        found = receive.recv()
    except EOFError:
        raise UserError("the process that checks the study's configurations was killed.") from None
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
    if isinstance(found, Exception):
        raise found
    plan = Plan(study.name, command, tuple(found), study.contrasts)
    write_plan(study.directory, plan)
    return plan


def _check(study: StudyFile, answer: Connection) -> None:
    from deq_collapse.study.check import check_study

    found: Sequence[Planned] | Exception
    try:
        found = check_study(study)
    except Exception as error:
        found = error
    with suppress(BrokenPipeError):  # the parent was interrupted while starting this process
        answer.send(found)


class Runner:
    """Runs the cells of a study, several at a time, each in its own process.

    Args:
        study: the study to run, or a part of it.
        plan: the checked plan of the whole study.
        jobs: number of cells at a time; they share the cores unless ``OMP_NUM_THREADS`` is set.
        retry: whether to rerun failed cells.
    """

    def __init__(self, study: StudyFile, plan: Plan, jobs: int = 1, retry: bool = False) -> None:
        self.directory, self.plan, self.jobs, self.retry = study.directory, plan, jobs, retry
        self._arguments = {cell.name: arguments(study, cell) for cell in study.cells}
        self._asked = replace(plan, cells=tuple(cell for cell in plan.cells if cell.name in self._arguments))
        alone = jobs == 1 or "OMP_NUM_THREADS" in os.environ
        self._threads = None if alone else max(1, _cores() // jobs)
        self._running: dict[int, tuple[Planned, BaseProcess]] = {}

    def run(self) -> None:
        """Runs the missing cells, and keeps ``results.json`` up to date.

        A run that fails is recorded with its reason, and the others continue. A cell that another process
        runs is left to it, unless that process has died when all others are done.

        Raises:
            KeyboardInterrupt, SystemExit: when interrupted, after all processes have ended.
        """
        with Display(self.directory, self._asked) as self._display:
            try:
                elsewhere = self._run(self._asked.cells)
                left = [cell for cell in elsewhere if is_missing(self._state(cell))]
                self._run(left)
            except BaseException:
                _end([process for _, process in self._running.values()])
                raise
            finally:
                write_results(self.directory, self.plan)

    def _run(self, cells: Sequence[Planned]) -> list[Planned]:
        """Runs cells; returns those that other processes were running."""
        waiting, elsewhere = list(reversed(cells)), []
        while waiting or self._running:
            while waiting and len(self._running) < self.jobs:
                cell = waiting.pop()
                state = self._state(cell)
                if state == "running":
                    elsewhere.append(cell)
                if is_missing(state, self.retry):
                    self._start(cell)
                else:
                    self._display.skipped(cell, state)
            elsewhere += self._ended()
            self._display.look()
        return elsewhere

    def _start(self, cell: Planned) -> None:
        args = (self.directory / cell.name, cell, self._arguments[cell.name], self.retry, self._threads)
        process = _context().Process(target=worker, args=args, name=cell.name)
        process.start()
        self._running[process.sentinel] = (cell, process)
        self._display.started(cell)

    def _ended(self) -> list[Planned]:
        """Waits briefly for runs to end; returns those that another process turned out to be running."""
        elsewhere = []
        for sentinel in wait(list(self._running), timeout=LOOK):
            assert isinstance(sentinel, int)
            cell, process = self._running.pop(sentinel)
            process.join()
            if process.exitcode not in (0, ELSEWHERE):
                self._record_death(cell, process)
            if process.exitcode in (ELSEWHERE, LOST):
                elsewhere.append(cell)
            self._display.ended(cell, process.exitcode == ELSEWHERE)
            write_results(self.directory, self.plan)
        return elsewhere

    def _record_death(self, cell: Planned, process: BaseProcess) -> None:
        """Records the end of a run whose process was killed and could not do so."""
        directory, code = self.directory / cell.name, process.exitcode or 0
        assert process.pid
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # further ranks of the run would wait forever
        if self._state(cell) in ("finished", "failed") or not (code < 0 or code == LOST):
            return
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else "lost"
        with lock(directory) as free:
            if free:
                write_state(directory, "interrupted", reason=f"its process was {how}")

    def _state(self, cell: Planned) -> str:
        return state_of(self.directory / cell.name)


def _context() -> ForkServerContext:
    """A context whose processes start from one that has done the imports but has no threads or GPU yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deq_collapse.config.run"])
    return context


def _start_server() -> None:
    """Starts the process that starts all others with Ctrl-C blocked: it ignores Ctrl-C only after its
    imports, and would print a traceback during them. Processes unblock it themselves.
    """
    resource_tracker.ensure_running()  # which resets any mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(processes: Sequence[BaseProcess]) -> None:
    """Interrupts the processes and their children, then kills those that do not end."""
    for process in processes:
        _signal(process, signal.SIGINT)
    for process in processes:
        process.join(GRACE)
    for process in processes:
        _signal(process, signal.SIGKILL)
        process.join()


def _signal(process: BaseProcess, number: signal.Signals) -> None:
    # Signal its group, which includes further ranks of its run, or the process itself before it has a group.
    if process.pid is None or process.exitcode is not None:
        return
    with suppress(ProcessLookupError):
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Turns SIGTERM into a ``SystemExit``, so that processes end before the program does."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
