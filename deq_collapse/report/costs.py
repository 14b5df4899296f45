"""Costs of each setting and refinement, as the texts of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from deq_collapse.analysis.costs import COSTS, Cost, Form
from deq_collapse.analysis.settings import Setting, settings
from deq_collapse.report.wording import NONE, magnitude, number, over_seeds, percent, whole
from deq_collapse.runs.record import Run
from deq_collapse.runs.study import Study

FORMS: dict[Form, Callable[[float], str]] = {
    "plain": number,
    "count": whole,
    "magnitude": magnitude,
    "MiB": lambda value: number(value / 2**20),
    "share": percent,
}


@dataclass(frozen=True)
class Row:
    """The runs of one setting and refinement, and their texts; no texts if none is finished."""

    setting: Setting
    refinement: str
    runs: tuple[Run, ...]
    texts: list[str]


@dataclass(frozen=True)
class CostTable:
    """The columns that have a value in some row, and the rows in blocks, one for each setting."""

    groups: list[tuple[str, int]]
    titles: list[str]
    blocks: list[list[Row]]


def cost_table(study: Study) -> CostTable:
    """A row per setting and refinement, mean ± standard deviation over seeds."""
    rows = [(setting, name, slot.runs) for setting in settings(study) for name, slot in setting.slots.items()]
    finished = [runs for _, _, runs in rows if runs]
    shown = [cost for cost in COSTS if any(_text(cost, runs) != NONE for runs in finished)]
    gradients = any(_gradients(runs) != NONE for runs in finished)
    columns = [(cost.group, cost.title) for cost in shown] + [("Solver", "gradient")] * gradients
    lines = [
        Row(
            setting,
            name,
            runs,
            [*(_text(cost, runs) for cost in shown), *([_gradients(runs)] * gradients)] if runs else [],
        )
        for setting, name, runs in rows
    ]
    groups = [(group, len(list(members))) for group, members in groupby(group for group, _ in columns)]
    blocks = [list(block) for _, block in groupby(lines, key=lambda row: row.setting.name)]
    return CostTable(groups, [title for _, title in columns], blocks)


def _text(cost: Cost, runs: Sequence[Run]) -> str:
    return over_seeds([cost.value(run) for run in runs], FORMS[cost.form])


def _gradients(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(run.solver.gradient for run in runs if run.solver)) or NONE
