"""The arrangement of a study's settings: a row for every K_A, a column for every R."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deq_collapse.analysis.imbalance import NEAR, imbalance_ratio, is_balanced
from deq_collapse.runs.record import Run
from deq_collapse.runs.setting import AXES_OF_IMBALANCE, setting_in_words
from deq_collapse.runs.study import Study

Cell = Mapping[str, Sequence[Run]]
"""The runs of one setting by refinement; a sequence holds the seeds."""

MOST_COLUMNS = 3


def first_run(cell: Cell) -> Run:
    """Any run of a setting, as all of them have its class counts and majority classes."""
    return next(iter(cell.values()))[0]


def families(study: Study) -> dict[str, dict[str, Cell]]:
    """Families of settings that differ only in imbalance, by their shared words ("" without other axes).

    If every family would hold a single setting, all settings form one family.
    """
    found: dict[str, dict[str, Cell]] = {}
    for setting, cell in study.cells.items():
        words = first_run(cell).words
        shared = {axis: label for axis, label in words.items() if axis not in AXES_OF_IMBALANCE}
        found.setdefault(setting_in_words(shared), {})[setting] = cell
    if all(len(family) == 1 for family in found.values()):
        return {"": dict(study.cells)} if study.cells else {}
    return found


def arranged(cells: Mapping[str, Cell]) -> list[list[str | None]]:
    """Rows of settings, with None for empty places.

    Step imbalances that span several K_A and R have a row for each K_A and a column for each R, below the
    rows of all other settings; otherwise settings fill rows of three in order.
    """
    steps = {setting: first_run(cell) for setting, cell in cells.items() if first_run(cell).majority}
    majorities = sorted({len(run.majority or ()) for run in steps.values()})
    columns = _columns([imbalance_ratio(run) for run in steps.values()])
    places = {
        (len(run.majority or ()), _column(columns, imbalance_ratio(run))): setting
        for setting, run in steps.items()
    }
    if len(majorities) < 2 or len(columns) < 2 or len(places) < len(steps):
        return _wrapped(list(cells), MOST_COLUMNS)
    rest = [setting for setting in cells if setting not in steps]
    grid = [[places.get((majority, ratio)) for ratio in range(len(columns))] for majority in majorities]
    return _wrapped(rest, len(columns)) + grid


def exemplary(cells: Mapping[str, Cell]) -> str:
    """The setting to examine: the step nearest to K_A = 3, R = 10, else the imbalance nearest to R = 10."""

    def distance(setting: str) -> tuple[bool, bool, float, float]:
        run = first_run(cells[setting])
        ratio = imbalance_ratio(run)
        return (
            is_balanced(run),
            not run.majority,
            abs(len(run.majority or ()) - 3),
            max(ratio / 10, 10 / ratio),
        )

    return min(cells, key=distance)


def _wrapped(settings: Sequence[str], columns: int) -> list[list[str | None]]:
    return [list(settings[i : i + columns]) for i in range(0, len(settings), columns)]


def _columns(ratios: Sequence[float]) -> list[float]:
    """The smallest ratio of every column."""
    columns: list[float] = []
    for ratio in sorted(ratios):
        if not columns or ratio > NEAR * columns[-1]:
            columns.append(ratio)
    return columns


def _column(columns: Sequence[float], ratio: float) -> int:
    return max(i for i, smallest in enumerate(columns) if smallest <= ratio)
