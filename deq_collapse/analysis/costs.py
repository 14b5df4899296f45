"""Costs of each setting and refinement: parameters, work, memory, and solver statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from deq_collapse.runs.record import Run, Solver

Form = Literal["plain", "count", "magnitude", "MiB", "share"]
"""How a number is shown: unchanged, as a whole number, with a metric prefix, in MiB (from bytes), in per
cent.
"""


@dataclass(frozen=True)
class Cost:
    """One number of a run: its name in files, the headings of its group and of its column, and its form."""

    key: str
    group: str
    title: str
    value: Callable[[Run], float | None]
    form: Form = "plain"


def _part(name: str) -> Cost:
    return Cost(f"parameters_{name}", "Parameters", name, lambda run: run.parameters.get(name), "count")


def _solver(key: str, title: str, value: Callable[[Solver], float | None], form: Form = "plain") -> Cost:
    return Cost(key, "Solver", title, lambda run: value(run.solver) if run.solver else None, form)


def _minutes_to_collapse(run: Run) -> float | None:
    """Training time, without measurements, up to the epoch from which on the run stayed collapsed."""
    epoch = run.collapsed_epoch
    if epoch is None or run.seconds_per_step is None:
        return None
    return epoch * run.steps / run.epochs * run.seconds_per_step / 60


COSTS = (
    *(_part(name) for name in ("refinement", "total")),
    Cost("flops_per_image", "Work", "FLOPs / image", lambda run: run.flops_per_image, "magnitude"),
    Cost("seconds_per_step", "Work", "s / step", lambda run: run.seconds_per_step),
    Cost("minutes_to_collapse", "Work", "minutes to collapse", _minutes_to_collapse),
    Cost("activation_bytes", "Activations", "MiB", lambda run: run.activation_bytes, "MiB"),
    Cost("last_step", "Steps", "last", lambda run: run.train.get("last_step")),
    _solver("forward_evaluations", "forward", lambda solver: solver.forward_evaluations),
    _solver("backward_evaluations", "backward", lambda solver: solver.backward_evaluations),
    _solver("residual", "residual", lambda solver: solver.residual),
    _solver("unconverged", "missed", lambda solver: solver.unconverged, "share"),
    _solver("backward_unconverged", "missed back", lambda solver: solver.backward_unconverged, "share"),
    Cost("spectral_radius", "Solver", "radius", lambda run: run.train.get("spectral_radius")),
)
