"""The time left for a study, estimated from the times of its runs so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deq_collapse.runs.files import HISTORY
from deq_collapse.study.plan import Plan, Planned
from deq_collapse.study.progress import progress
from deq_collapse.study.state import read_state, state_of


@dataclass(frozen=True)
class Standing:
    """The state of a cell.

    Attributes:
        cell: the cell.
        state: finished, running, interrupted, failed or waiting.
        epoch: the last completed one.
        pace: seconds per epoch, if known.
        reason: why it failed or was interrupted.
        where: the machine, and the cluster job, on which it runs or ran.
    """

    cell: Planned
    state: str
    epoch: int
    pace: float | None
    reason: str | None
    where: str


def standings(directory: Path, plan: Plan) -> list[Standing]:
    """The states of all cells of a study, in the order of the grid."""
    return [_standing(directory / cell.name, cell) for cell in plan.cells]


def _standing(directory: Path, cell: Planned) -> Standing:
    record = read_state(directory)
    state = state_of(directory)
    epoch = progress(directory).epoch or (cell.epochs if state == "finished" else 0)
    reason = record.get("reason") if state in ("failed", "interrupted") else None
    return Standing(cell, state, epoch, _pace(directory, record, epoch), reason, record.get("host", ""))


def _pace(directory: Path, record: dict[str, Any], epoch: int) -> float | None:
    """Seconds per epoch of the last attempt."""
    epochs = epoch - record.get("first_epoch", 0)
    try:
        seconds = record.get("seconds") or (directory / HISTORY).stat().st_mtime - record["started"]
    except (OSError, KeyError):
        return None
    return seconds / epochs if epochs > 0 and seconds > 0 else None


def time_left(cells: Sequence[Standing], jobs: int | None = None) -> float | None:
    """Seconds until all cells that are not finished or failed are done, ``jobs`` at a time, by default as
    many as are running; ``None`` if nothing was timed yet.

    A running cell uses its own pace, if known; others use the mean pace of the timed cells whose axes differ
    least.
    """
    left = [cell for cell in cells if cell.state not in ("finished", "failed")]
    timed = [cell for cell in cells if cell.pace is not None]
    if not timed:
        return None if left else 0.0
    seconds = [_pace_of(cell, timed) * (cell.cell.epochs - cell.epoch) for cell in left]
    at_once = jobs or max(1, sum(cell.state == "running" for cell in cells))
    return max([sum(seconds) / at_once, *seconds], default=0.0)


def _pace_of(cell: Standing, timed: Sequence[Standing]) -> float:
    if cell.pace is not None and cell.state == "running":
        return cell.pace
    alike = {id(other): _alike(cell.cell, other.cell) for other in timed}
    most = max(alike.values())
    paces = [other.pace for other in timed if alike[id(other)] == most and other.pace is not None]
    return sum(paces) / len(paces)


def _alike(a: Planned, b: Planned) -> int:
    """Number of axes on which two cells have the same label; the seed does not affect time."""
    return sum(b.axes.get(axis) == label for axis, label in a.axes.items() if axis != "seed")
