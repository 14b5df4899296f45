"""One finished run as typed values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from deq_collapse.runs.beside import Beside
from deq_collapse.runs.config import Saved
from deq_collapse.runs.geometry import Geometry
from deq_collapse.runs.setting import in_words, refinement_of, setting_in_words

COLLAPSED = {"nc1": 0.05, "nc2_etf_means": 0.3, "nc3": 0.125}
"""Levels at or below which a run with training error 0 must end, on the training split, to count as
collapsed.

These are the rounded values of a public run from the literature: ResNet-9 on all of Fashion-MNIST, 200 epochs
of SGD, ends at NC1 0.05, NC2 0.29 and an unsquared NC3 of 0.35, whose square is 0.12. An NC1 of 0.05 means
that, along the directions between classes, features deviate within classes by a fifth of the deviation of
class means.
"""
SAME_SIZE = 0.01
"""Networks count as equal in size if their parameters differ by at most this share."""
Split = Literal["train", "validation", "test"]
MISSED = 1e-3
"""The largest share of training samples in any epoch, and of a split's where it is measured, that may miss a
solver's tolerance in a run whose values of that split enter a comparison."""
EMPTY = pd.Series([0.0], pd.Index([0], name="epoch"), name="value").iloc[:0]
"""A curve without values."""


@dataclass(frozen=True)
class Solver:
    """How the fixed points of an equilibrium run were found; evaluations are means over the last epoch.

    Attributes with defaults were not recorded by every version, or do not exist for every gradient.
    """

    gradient: str
    forward_evaluations: float | None
    backward_evaluations: float | None
    residual: float
    unconverged: float | None
    unconverged_worst_epoch: float | None
    tolerance: float
    solver: str | None = None
    backward_solver: str | None = None
    backward_tolerance: float | None = None
    backward_residual: float | None = None
    backward_unconverged: float | None = None
    backward_unconverged_worst_epoch: float | None = None


@dataclass(frozen=True)
class End:
    """How a run ended, and what was planned.

    Attributes:
        by: `epochs` or `steps`, the limit it reached; `time`, `early stopping`, `stopped`.
        whole_epochs: epochs that had all their batches.
        planned_epochs, planned_steps: None without such a limit.
    """

    by: str
    whole_epochs: int
    planned_epochs: int | None = None
    planned_steps: int | None = None

    @property
    def as_planned(self) -> bool:
        """Whether the plan was completed: all epochs, or all steps if the epochs were not limited."""
        if self.planned_epochs is None:
            return self.by == "steps"
        return self.whole_epochs >= self.planned_epochs


@dataclass(frozen=True)
class Run:
    """One finished run: its record in `results.json`, all logged values, its final geometry, and its values
    along the computation if there are any.
    """

    name: str
    axes: dict[str, str]
    dataset: str
    class_counts: tuple[int, ...]
    majority: tuple[int, ...] | None
    epochs: int
    steps: int
    parameters: dict[str, int]
    flops_per_image: float | None
    activation_bytes: float | None
    seconds_per_step: float | None
    terminal_epoch: int | None
    nc1_fall: float
    train: dict[str, float]
    validation: dict[str, float]
    test: dict[str, float]
    solver: Solver | None
    history: pd.DataFrame
    geometry: Geometry
    environment: dict[str, Any]
    along: pd.DataFrame | None
    theory: Beside | None
    end: End | None = None  # not recorded by every version; taken as ended as planned
    saved: Saved = field(default_factory=Saved)  # from its configuration

    @property
    def refinement(self) -> str:
        """Its label on the axis `refinement`; without that axis `explicit` or `equilibrium`."""
        return refinement_of(self.axes, self.solver)

    @property
    def implicit(self) -> bool:
        """Whether its features are fixed points sought by a solver."""
        return self.solver is not None or self.refinement == "equilibrium"

    @property
    def words(self) -> dict[str, str]:
        """Its labels in words, by axis."""
        return in_words(self.axes, self.saved.imbalance)

    @property
    def setting(self) -> str:
        """Everything but refinement and seed, in words: two runs of one setting are comparable."""
        return setting_in_words(self.words) or self.dataset

    @property
    def held_out(self) -> Split:
        """The split measured together with the training split: `validation`, or else `test`."""
        return "validation" if self.validation else "test"

    @property
    def collapsed(self) -> bool:
        """Whether the run reached the terminal phase and ended at the levels of `COLLAPSED`."""
        levels = (self.train.get(name, math.inf) <= level for name, level in COLLAPSED.items())
        return self.terminal_epoch is not None and all(levels)

    @property
    def collapsed_epoch(self) -> int | None:
        """The first measured epoch from which on it stayed collapsed; None if it did not end collapsed."""
        if not self.collapsed:
            return None
        levels = {"error": 0.0, **COLLAPSED}
        curves = {name: self.curve("train", name) for name in levels}
        measured = pd.DataFrame(curves).dropna()
        above = measured.index[(measured > pd.Series(levels)).any(axis=1)]
        after = measured.index[measured.index > max(above, default=0)]
        return int(after[0]) if len(after) else None

    @property
    def variability_collapsed(self) -> bool:
        """Whether training error reached 0, and NC1 the level of `COLLAPSED`."""
        return self.terminal_epoch is not None and self.train.get("nc1", math.inf) <= COLLAPSED["nc1"]

    @property
    def converged(self) -> bool:
        """Whether its features are fixed points throughout: `solved` on all splits."""
        return all(self.solved(split) for split in ("train", "validation", "test"))

    def solved(self, split: Split) -> bool:
        """Whether the measures of a split are of fixed points: at most a share of `MISSED` of its images
        missed the tolerance. The same must hold for the training images in every epoch and when measured,
        since otherwise the network was not trained at fixed points: nor was one that solved in none, having
        ended in unrolled pre-training. True without a solver.
        """
        if self.solver is None:
            return True
        measured = (values.get("unconverged", 0.0) for values in (self.train, getattr(self, split)))
        in_training = self.solver.unconverged_worst_epoch
        worst = max(math.inf if in_training is None else in_training, *measured)
        return worst <= MISSED * (1 + 1e-6)  # float32 rounds the share that much

    @property
    def complete(self) -> bool:
        """Whether it trained for as long as planned."""
        return self.end is None or self.end.as_planned

    def sound(self, split: Split) -> bool:
        """Whether its final values of a split are those of the network as planned."""
        return self.solved(split) and self.complete

    def as_long(self, other: Run) -> bool:
        """Whether it and another run both ended as planned, or trained equally long."""
        return (self.complete and other.complete) or (self.epochs, self.steps) == (other.epochs, other.steps)

    def curve(self, split: str, metric: str) -> pd.Series[float]:
        """Values of one metric by completed epochs (the last of each epoch); may be empty."""
        return self._curves.get((split, metric), EMPTY)

    @cached_property
    def _curves(self) -> dict[tuple[str, str], pd.Series[float]]:
        last = self.history.groupby(["split", "metric", "epoch"])["value"].last()
        pairs = self.history[["split", "metric"]].drop_duplicates().itertuples(index=False)
        return {(split, metric): last.loc[split, metric] for split, metric in pairs}
