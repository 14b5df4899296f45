"""What a study says while it runs: a live line per run on a terminal, else a plain line at every tenth."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from deq_collapse.study.grid import Cell, StudyFile
from deq_collapse.study.progress import progress
from deq_collapse.study.state import read_state, state_of


class Display:
    """Follows the runs of a study by the files they leave."""

    def __init__(self, study: StudyFile) -> None:
        self.study = study
        self.console = Console(soft_wrap=True, highlight=False)
        self._live = Progress(
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._number = {cell.name: number for number, cell in enumerate(study.cells, 1)}
        self._lines: dict[str, TaskID] = {}
        self._tenths: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._live.start()
        self._all = self._live.add_task("runs", total=len(self.study.cells), values="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def skipped(self, cell: Cell, state: str) -> None:
        """Says why a cell is not run."""
        reason = read_state(self.study.directory / cell.name).get("reason") or "no reason recorded"
        words = {
            "finished": "finished before",
            "running": "at work in another process",
            "failed": f"failed before ({reason}); --retry runs it again",
        }
        self._say(cell, words[state])
        self._live.advance(self._all)

    def started(self, cell: Cell) -> None:
        """Opens the line of a run."""
        self._lines[cell.name] = self._live.add_task(cell.name, total=None, values="starts")

    def ended(self, cell: Cell, elsewhere: bool) -> None:
        """Closes the line of a run, and says how it ended."""
        self._live.remove_task(self._lines.pop(cell.name))
        if elsewhere:
            self.skipped(cell, "running")
            return
        self._live.advance(self._all)
        directory = self.study.directory / cell.name
        state, reason = state_of(directory), read_state(directory).get("reason")
        self._say(cell, f"{state}: {reason}" if reason and state != "finished" else state)

    def look(self) -> None:
        """Reads how far the runs are."""
        for name, line in self._lines.items():
            far = progress(self.study.directory / name)
            self._live.update(line, completed=far.epoch, total=far.epochs, values=far.measures)
            tenth = 10 * far.epoch // far.epochs if far.epochs else 0
            if self._live.disable and far.epoch and self._tenths.get(name) != tenth:
                self._tenths[name] = tenth
                self.console.print(f"[{self._number[name]}/{len(self._number)}] {name}  {far}", markup=False)

    def _say(self, cell: Cell, words: str) -> None:
        place = f"[{self._number[cell.name]}/{len(self._number)}]"
        self._live.console.print(f"{place} {cell.name}  {words}", markup=False)
