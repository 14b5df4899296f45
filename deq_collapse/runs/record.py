"""One finished run as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from deq_collapse.runs.beside import Beside
from deq_collapse.runs.geometry import Geometry
from deq_collapse.runs.setting import refinement_of, setting_in_words

COLLAPSE_FALL = 20.0
"""A run counts as collapsed when training NC1 ends at least this many times below its first value."""


@dataclass(frozen=True)
class Solver:
    """How the fixed points of an equilibrium run were found; evaluations are means over the last epoch.

    What has a default was not recorded by every version, or has no value for every gradient mode.
    """

    gradient: str
    forward_evaluations: float | None
    backward_evaluations: float | None
    residual: float
    unconverged: float
    unconverged_worst_epoch: float
    tolerance: float
    solver: str | None = None
    backward_solver: str | None = None
    backward_tolerance: float | None = None
    backward_residual: float | None = None
    backward_unconverged: float | None = None
    backward_unconverged_worst_epoch: float | None = None


@dataclass(frozen=True)
class Run:
    """One finished run: its record in `results.json`, every logged value, its final geometry, and its values
    along the computation if it left any.
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

    @property
    def refinement(self) -> str:
        """`explicit` or `equilibrium`."""
        return refinement_of(self.axes, self.solver)

    @property
    def setting(self) -> str:
        """Everything but refinement and seed, in words: two runs of one setting are comparable.

        >>> setting_in_words({"imbalance": "step_ka3_r10", "refinement": "explicit", "seed": "0"})
        'step, K_A=3, R=10'
        """
        return setting_in_words(self.axes) or self.dataset

    @property
    def held_out(self) -> str:
        """The split measured beside the training split whenever that was: `validation`, or else `test`."""
        return "validation" if self.validation else "test"

    @property
    def collapsed(self) -> bool:
        """Whether the run reached the terminal phase and its training NC1 fell by `COLLAPSE_FALL` or more."""
        return self.terminal_epoch is not None and self.nc1_fall >= COLLAPSE_FALL

    def curve(self, split: str, metric: str) -> pd.Series[float]:
        """Values of one metric by completed epochs (the last of each epoch); may be empty."""
        rows = self.history[(self.history["split"] == split) & (self.history["metric"] == metric)]
        return rows.groupby("epoch")["value"].last()
