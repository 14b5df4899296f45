"""What each setting and refinement costs: parameters, work, memory, and how the solver did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from deq_collapse.study.records import Run, Solver, Study
from deq_collapse.study.tables import Setting, settings
from deq_collapse.study.wording import NONE, magnitude, number, over_seeds, percent, whole

Form = Callable[[float], str]


@dataclass(frozen=True)
class Cost:
    """One number of a run: its name in files, the heading of its group and of itself, and how it is told."""

    key: str
    group: str
    title: str
    value: Callable[[Run], float | None]
    form: Form = number


@dataclass(frozen=True)
class Row:
    """The runs of one setting and refinement, and their texts; no texts where none is finished."""

    setting: Setting
    refinement: str
    runs: tuple[Run, ...]
    texts: list[str]


@dataclass(frozen=True)
class CostTable:
    """Columns that say something in some row, and rows block by block, a block for each setting."""

    groups: list[tuple[str, int]]
    titles: list[str]
    blocks: list[list[Row]]


def _part(name: str) -> Cost:
    return Cost(f"parameters_{name}", "Parameters", name, lambda run: run.parameters.get(name), whole)


def _solver(key: str, title: str, value: Callable[[Solver], float | None], form: Form = number) -> Cost:
    return Cost(key, "Solver", title, lambda run: value(run.solver) if run.solver else None, form)


COSTS = (
    *(_part(name) for name in ("refinement", "total")),
    Cost("flops_per_image", "Work", "FLOPs / image", lambda run: run.flops_per_image, magnitude),
    Cost("seconds_per_step", "Work", "s / step", lambda run: run.seconds_per_step),
    Cost(
        "activation_bytes",
        "Activations",
        "MiB",
        lambda run: run.activation_bytes,
        lambda value: number(value / 2**20),
    ),
    _solver("forward_evaluations", "forward", lambda solver: solver.forward_evaluations),
    _solver("backward_evaluations", "backward", lambda solver: solver.backward_evaluations),
    _solver("residual", "residual", lambda solver: solver.residual),
    _solver("unconverged", "missed", lambda solver: solver.unconverged, percent),
    _solver("backward_unconverged", "missed back", lambda solver: solver.backward_unconverged, percent),
    Cost("spectral_radius", "Solver", "radius", lambda run: run.train.get("spectral_radius")),
)


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
    return over_seeds([cost.value(run) for run in runs], cost.form)


def _gradients(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(run.solver.gradient for run in runs if run.solver)) or NONE
