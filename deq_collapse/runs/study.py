"""A finished study as typed values: `results.json` and the files in each run's folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from deq_collapse.errors import UserError
from deq_collapse.runs.along import read_along
from deq_collapse.runs.beside import read_beside
from deq_collapse.runs.config import read_saved
from deq_collapse.runs.files import ENVIRONMENT, RESULT, RESULTS, SPLITS
from deq_collapse.runs.geometry import read_geometry
from deq_collapse.runs.history import read_history
from deq_collapse.runs.published import read_published
from deq_collapse.runs.reading import number, read_json, reason
from deq_collapse.runs.record import End, Run, Solver
from deq_collapse.runs.setting import AXES_OF_DATA, refinement_of


@dataclass(frozen=True)
class Contrast:
    """Two labels of one axis, whose runs are compared if all their other labels are the same.

    Attributes:
        name: of the change, e.g. `bound`.
        axis: of the change.
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
    """A study folder: `runs` in the order of the grid; `planned`, the axes of all its cells if known;
    `imbalances`, the words of the parts of each label of that axis, if some run has saved its configuration;
    `published`, curves of others to draw beside its own.
    """

    name: str
    command: str
    runs: tuple[Run, ...]
    failed: tuple[Failure, ...]
    planned: tuple[dict[str, str], ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    imbalances: dict[str, dict[str, str]] = field(default_factory=dict)
    published: pd.DataFrame | None = field(default=None, compare=False, repr=False)

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


def call_data_by_name(study: Study) -> Study:
    """Replaces the label of a data set on an axis everywhere by the name in its finished runs.

    If two labels belong to the same data set, the axis is about something else and keeps its labels.
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
        UserError: if a file is missing or has the wrong content; the message names the file.
    """
    return study_of(directory, read_json(directory / RESULTS))


def study_of(directory: Path, results: dict[str, Any]) -> Study:
    """The same for results that were not written to a file; the directory of a single run has only that run.

    Raises:
        UserError: see `read_study`.
    """
    path = directory / RESULTS
    try:
        runs = tuple(_run(_place(directory, record["name"]), record) for record in results["runs"])
        imbalances = _imbalances(directory, runs, results.get("cells", ()))
        failed = tuple(Failure(entry["name"], entry["reason"]) for entry in results["failed"])
        planned = tuple(dict(cell["axes"]) for cell in results.get("cells", ()))
        contrasts = tuple(Contrast(**entry) for entry in results.get("contrasts", ()))
        curves = read_published(directory)
        study = Study(
            results["study"], results["command"], runs, failed, planned, contrasts, imbalances, curves
        )
        return call_data_by_name(study)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a study's results ({reason(error)}); run the study again.") from error


def _place(directory: Path, name: str) -> Path:
    return directory if (directory / RESULT).exists() else directory / name


def _imbalances(
    directory: Path, runs: Iterable[Run], cells: Iterable[Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """The words of every label of an imbalance, each from one of its runs, finished or started."""
    found = {run.axes["imbalance"]: run.saved.imbalance for run in runs if "imbalance" in run.axes}
    for cell in cells:
        label = cell["axes"].get("imbalance")
        if label is not None and "name" in cell and not found.get(label):
            found[label] = read_saved(directory / cell["name"]).imbalance
    return found


def _run(directory: Path, record: dict[str, Any]) -> Run:
    """One record completed by the files of the run's folder."""
    record = {"validation": {}, "test": {}, "end": None} | record
    read = {"history", "geometry", "environment", "along", "theory", "saved"}
    own = {field.name for field in fields(Run)} - read
    values = {name: record[name] for name in own}
    for split in SPLITS:
        values[split] = {name: number(value) for name, value in values[split].items()}
    if values["majority"] is not None:
        values["majority"] = tuple(values["majority"])
    if values["solver"] is not None:
        solver = values["solver"]
        given = {field.name for field in fields(Solver) if field.default is MISSING or field.name in solver}
        values["solver"] = Solver(**{name: solver[name] for name in given})
    if values["end"] is not None:
        values["end"] = End(**values["end"])
    values["class_counts"] = tuple(values["class_counts"])
    values["nc1_fall"] = number(values["nc1_fall"])
    return Run(
        **values,
        history=read_history(directory),
        geometry=read_geometry(directory),
        environment=read_json(directory / ENVIRONMENT),
        along=read_along(directory),
        saved=read_saved(directory),
        theory=read_beside(
            directory,
            values["name"],
            refinement_of(values["axes"], values["solver"]),
            values["majority"],
        ),
    )
