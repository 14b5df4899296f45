"""The output of a running study: a live line per run on a terminal, else a plain line after every tenth."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from deq_collapse.callbacks.progress import NameColumn
from deq_collapse.study.estimate import standings, time_left
from deq_collapse.study.plan import Plan, Planned
from deq_collapse.study.progress import progress
from deq_collapse.study.state import read_state, state_of
from deq_collapse.study.status import left_in_words

PAUSE = 10.0
"""Seconds between two estimates of the time left."""


class Display:
    """Follows the runs of a study by their files.

    Args:
        directory: of the study.
        plan: its cells.
    """

    def __init__(self, directory: Path, plan: Plan) -> None:
        self.directory, self.plan = directory, plan
        self._console = Console(soft_wrap=True, highlight=False)
        self._live = Progress(
            NameColumn(),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._number = {cell.name: number for number, cell in enumerate(plan.cells, 1)}
        self._lines: dict[str, TaskID] = {}
        self._tenths: dict[str, int] = {}
        self._due = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        self._all = self._live.add_task("runs", total=len(self.plan.cells), words="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def skipped(self, cell: Planned, state: str) -> None:
        """Prints why a cell is not run."""
        reason = read_state(self.directory / cell.name).get("reason") or "no reason recorded"
        words = {
            "finished": "finished before",
            "running": "at work in another process",
            "failed": f"failed before ({reason}); --retry runs it again",
        }
        self._say(cell, words[state])
        self._count()

    def started(self, cell: Planned) -> None:
        """Opens the line of a run."""
        self._lines[cell.name] = self._live.add_task(cell.name, total=cell.epochs, words="starts")
        self._tenths[cell.name] = 10 * progress(self.directory / cell.name).epoch // cell.epochs

    def ended(self, cell: Planned, elsewhere: bool) -> None:
        """Closes the line of a run, and prints how it ended."""
        self._live.remove_task(self._lines.pop(cell.name))
        if elsewhere:
            self.skipped(cell, "running")
            return
        directory = self.directory / cell.name
        state, reason = state_of(directory), read_state(directory).get("reason")
        self._say(cell, f"{state}: {reason}" if reason and state != "finished" else state)
        self._count()

    def look(self) -> None:
        """Reads the progress of the runs and, every `PAUSE` seconds, the time left."""
        if self._lines and time.monotonic() > self._due:
            self._due = time.monotonic() + PAUSE
            self._count()
        for name, line in self._lines.items():
            far, total = progress(self.directory / name), self.plan.cells[self._number[name] - 1].epochs
            self._live.update(line, completed=far.epoch, words=far.measures)
            tenth = 10 * far.epoch // total
            if self._live.disable and tenth > self._tenths[name]:
                self._tenths[name] = tenth
                self._console.print(
                    self._place(name), f"epoch {far.epoch}/{total} ", far.measures, markup=False
                )

    def _count(self) -> None:
        """Updates the line of the whole study, with the time left."""
        cells = standings(self.directory, self.plan)
        left = time_left(cells)
        words = left_in_words(left) if left else ""
        done = sum(cell.state in ("finished", "failed") for cell in cells)
        self._live.update(self._all, completed=done, words=words)

    def _say(self, cell: Planned, words: str) -> None:
        self._live.console.print(self._place(cell.name), words, markup=False)

    def _place(self, name: str) -> str:
        return f"[{self._number[name]}/{len(self._number)}] {name} "
