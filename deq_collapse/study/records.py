"""A finished study as typed values: `results.json` and what each run left in its own folder."""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deq_collapse.errors import UserError
from deq_collapse.study.beside import Beside, read_beside

COLLAPSED = {"nc1": 0.05, "nc2_etf_means": 0.3, "nc3": 0.125}
"""What a run with training error 0 must end at or below, on the training split, to be called collapsed.

These are the values of a public run of the field, rounded: ResNet-9 on all of Fashion-MNIST, 200 epochs of
SGD, ends at NC1 0.05, NC2 0.29 and an unsquared NC3 of 0.35, whose square is 0.12. An NC1 of 0.05 means that
features deviate within classes by a fifth of what class means do, along the directions between classes.
"""
MISSED = 1e-3
"""The largest share of samples, in any epoch and where the geometry is measured, that may miss a solver's
tolerance in a run that enters a comparison."""

AXES_OF_IMBALANCE = ("imbalance", "K_A", "R")
"""Axes of a study that set the class counts and nothing else; settings that share all others are a group."""
AXES_OF_DATA = ("data", "dataset")
"""Axes of a study whose labels are data sets; these go by their own names, see `call_data_by_name`."""

HISTORY_COLUMNS = ("epoch", "step", "split", "metric", "value")
ALONG_COLUMNS = ("split", "evaluations", "module", "metric", "value")
TYPES = {"epoch": int, "step": int, "evaluations": int, "value": float}
"""Of the columns that hold numbers."""


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
class Geometry:
    """Class means and classifier (K, d), and test features (n, d) with labels (n,), after the last epoch."""

    class_means_train: NDArray[np.float64]
    class_means_test: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    test_features: NDArray[np.float64]
    test_labels: NDArray[np.int64]
    class_names: NDArray[np.str_]
    majority: NDArray[np.int64]


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
    def implicit(self) -> bool:
        """Whether its features are fixed points that a solver looked for."""
        return self.solver is not None or self.refinement == "equilibrium"

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
        """Whether the run reached the terminal phase and ended at the levels of `COLLAPSED`."""
        levels = (self.train.get(name, math.inf) <= level for name, level in COLLAPSED.items())
        return self.terminal_epoch is not None and all(levels)

    def curve(self, split: str, metric: str) -> pd.Series[float]:
        """Values of one metric by completed epochs (the last of each epoch); may be empty."""
        rows = self.history[(self.history["split"] == split) & (self.history["metric"] == metric)]
        return rows.groupby("epoch")["value"].last()

    @property
    def variability_collapsed(self) -> bool:
        """Whether training error reached 0, and NC1 the level of `COLLAPSED`."""
        return self.terminal_epoch is not None and self.train.get("nc1", math.inf) <= COLLAPSED["nc1"]

    @property
    def converged(self) -> bool:
        """Whether its features are fixed points: at most a share of `MISSED` missed the tolerance in any
        epoch, and where train and test split were measured. True of what has no solver.
        """
        if self.solver is None:
            return True
        measured = (self.train.get("unconverged", 0.0), self.test.get("unconverged", 0.0))
        return max(self.solver.unconverged_worst_epoch, *measured) <= MISSED


@dataclass(frozen=True)
class Contrast:
    """Two labels of one axis, whose runs are compared where all their other labels are the same.

    Attributes:
        name: of what changes, as `bound`.
        axis: on which it changes.
        before, after: the labels.
    """

    name: str
    axis: str
    before: str
    after: str


@dataclass(frozen=True)
class Failure:
    """A run that did not finish, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Study:
    """A study folder; `runs` in the order of the grid, `planned` the axes of all its cells where known."""

    name: str
    command: str
    runs: tuple[Run, ...]
    failed: tuple[Failure, ...]
    planned: tuple[dict[str, str], ...] = ()
    contrasts: tuple[Contrast, ...] = ()

    @cached_property
    def cells(self) -> dict[str, dict[str, list[Run]]]:
        """Runs by setting, then by refinement (those without a solver first); a list holds the seeds."""
        cells = by_setting(self.runs)
        order = dict.fromkeys(run.setting for run in self.runs)
        return {setting: cells[setting] for setting in order}


def by_setting(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """Runs by setting, then by refinement, those without a solver first."""
    cells: dict[str, dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: run.implicit):
        cells.setdefault(run.setting, {}).setdefault(run.refinement, []).append(run)
    return cells


def refinement_of(axes: Mapping[str, str], solver: object) -> str:
    """`explicit` or `equilibrium`, or what a study calls it."""
    return axes.get("refinement", "equilibrium" if solver else "explicit")


def axes_in_words(axes: Mapping[str, str]) -> tuple[str, str]:
    """Data and imbalance, and what else a run's axes say, in words.

    >>> axes_in_words({"imbalance": "step", "K_A": "3", "R": "10", "family": "free", "refinement": "tied"})
    ('step, K_A=3, R=10', 'free, tied')
    """
    common = {axis: label for axis, label in axes.items() if axis in (*AXES_OF_IMBALANCE, *AXES_OF_DATA)}
    rest = [str(label).replace("_", " ") for axis, label in axes.items() if axis not in (*common, "seed")]
    return setting_in_words(common), ", ".join(rest)


def setting_in_words(axes: Mapping[str, str]) -> str:
    """The values of all axes but refinement and seed, readable: `step_ka3_r10` is `step, K_A=3, R=10`.

    >>> setting_in_words({"data": "CIFAR-10", "imbalance": "step", "K_A": "3", "R": "10", "loss": "mse"})
    'CIFAR-10; step, K_A=3, R=10; loss mse'
    """
    words: dict[str, list[str]] = {}
    for axis, value in axes.items():
        if axis in ("refinement", "seed"):
            continue
        text = str(value).replace("long_tailed", "long-tailed").replace("_", " ")
        text = re.sub(r" ka(\d+)", r", K_A=\1", text)
        text = re.sub(r" r(\d+)", r", R=\1", text)
        if axis in AXES_OF_DATA:
            words[axis] = [str(value).replace("_", " ")]
        elif axis == "imbalance":
            words.setdefault("imbalance", []).insert(0, text)
        elif axis in AXES_OF_IMBALANCE:
            words.setdefault("imbalance", []).append(f"{axis}={text}")
        else:
            words[axis] = [f"{axis.replace('_', ' ')} {text}"]
    return "; ".join(", ".join(parts) for parts in words.values())


def call_data_by_name(study: Study) -> Study:
    """Replaces the label of a data set on an axis by the name that its finished runs tell, everywhere.

    Where two labels are of one data set the axis is about something else, and keeps its labels.
    """
    names: dict[str, dict[str, str]] = {}
    for axis in AXES_OF_DATA:
        known = {run.axes[axis]: run.dataset for run in study.runs if axis in run.axes}
        names[axis] = known if len(set(known.values())) == len(known) else {}

    def named(axes: Mapping[str, str]) -> dict[str, str]:
        return {axis: names.get(axis, {}).get(label, label) for axis, label in axes.items()}

    runs = tuple(replace(run, axes=named(run.axes)) for run in study.runs)
    return replace(study, runs=runs, planned=tuple(map(named, study.planned)))


def read_study(directory: Path) -> Study:
    """Read `results.json`, and the history, geometry and environment of every run.

    Raises:
        UserError: a file is missing or does not hold what it should; the message names the file.
    """
    path = directory / "results.json"
    results = _read_json(path)
    try:
        runs = tuple(_run(directory / record["name"], record) for record in results["runs"])
        failed = tuple(Failure(entry["name"], entry["reason"]) for entry in results["failed"])
        planned = tuple(dict(cell["axes"]) for cell in results.get("cells", ()))
        contrasts = tuple(Contrast(**entry) for entry in results.get("contrasts", ()))
        return call_data_by_name(
            Study(results["study"], results["command"], runs, failed, planned, contrasts)
        )
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is not a study's results ({_reason(error)}); run the study again."
        ) from error


def _run(directory: Path, record: dict[str, Any]) -> Run:
    """One record completed by the files of the run's folder."""
    record = {"validation": {}} | record
    own = {field.name for field in fields(Run)} - {"history", "geometry", "environment", "along", "theory"}
    values = {name: record[name] for name in own}
    for split in ("train", "validation", "test"):
        values[split] = {name: _number(value) for name, value in values[split].items()}
    if values["majority"] is not None:
        values["majority"] = tuple(values["majority"])
    if values["solver"] is not None:
        solver = values["solver"]
        given = {field.name for field in fields(Solver) if field.default is MISSING or field.name in solver}
        values["solver"] = Solver(**{name: solver[name] for name in given})
    values["class_counts"] = tuple(values["class_counts"])
    values["nc1_fall"] = _number(values["nc1_fall"])
    return Run(
        **values,
        history=_read_table(directory / "history.csv", HISTORY_COLUMNS),
        geometry=_read_geometry(directory / "geometry.npz"),
        environment=_read_json(directory / "environment.json"),
        along=_read_table(along, ALONG_COLUMNS) if (along := directory / "along.csv").exists() else None,
        theory=read_beside(
            directory,
            values["name"],
            refinement_of(values["axes"], values["solver"]),
            values["majority"],
        ),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; give the folder of a study that was run.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({_reason(error)}).") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} should hold one JSON object, not a {type(value).__name__}.")
    return value


def _read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype={name: TYPES.get(name, str) for name in columns})
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; the run's folder is incomplete, run it again.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a table of logged values ({_reason(error)}).") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; it should have all of {columns}.")
    return table


def _read_geometry(path: Path) -> Geometry:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            geometry = Geometry(**{field.name: archive[field.name] for field in fields(Geometry)})
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; the run's folder is incomplete, run it again.") from error
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a complete file of class geometry ({_reason(error)}).") from error
    shapes = {geometry.class_means_train.shape, geometry.class_means_test.shape, geometry.weight.shape}
    if len(shapes) != 1 or geometry.test_features.shape[:1] != geometry.test_labels.shape:
        raise UserError(f"{path} holds arrays whose shapes do not belong together.")
    return geometry


def _number(value: float | None) -> float:
    """JSON has no nan: null stands for a value that was not finite."""
    return math.nan if value is None else float(value)


def _reason(error: Exception) -> str:
    """What went wrong, on one line."""
    text = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return text.splitlines()[0].rstrip(".")
