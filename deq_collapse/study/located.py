"""A study as planned by its file, or as found in its directory: its runs, finished or not."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deq_collapse.config.files import read_yaml
from deq_collapse.errors import UserError
from deq_collapse.runs.files import CONFIG, RESULTS
from deq_collapse.study.grid import read_study_file
from deq_collapse.study.plan import read_plan


@dataclass(frozen=True)
class Located:
    """A study's runs.

    Attributes:
        name: of the study.
        directory: of its runs.
        runs: the axes of each run, by the name of its directory.
        whole: whether all runs are known; a directory may show only those that have started.
    """

    name: str
    directory: Path
    runs: dict[str, dict[str, str]]
    whole: bool


def locate(path: Path) -> Located:
    """The study of a study file, or of a directory of runs.

    Raises:
        UserError: if it is neither.
    """
    if not path.is_dir():
        study = read_study_file(path)
        runs = {cell.name: cell.axes for cell in study.cells}
        planned = _planned(study.directory)
        if planned and runs.keys() <= planned.runs.keys():  # more seeds were asked for than the file has
            runs = planned.runs
        return Located(study.name, study.directory, runs, True)
    if planned := _planned(path):
        return planned
    with suppress(OSError, ValueError):  # written only after the first run
        results = json.loads((path / RESULTS).read_text(encoding="utf-8"))
        if cells := results.get("cells"):
            return Located(results["study"], path, {cell["name"]: cell["axes"] for cell in cells}, True)
    configs = {file.parent.name: read_yaml(file) for file in sorted(path.glob(f"*/{CONFIG}"))}
    if not configs:
        raise UserError(f"{path} holds no runs yet: give a study file, or a directory that has runs.")
    names = {config.get("study") for config in configs.values()} - {None}
    name = str(names.pop()) if len(names) == 1 else path.resolve().name
    return Located(name, path, {run: config.get("axes") or {} for run, config in configs.items()}, False)


def _planned(directory: Path) -> Located | None:
    """The study that was last run in a directory; ``None`` if its plan is missing or damaged, which the next
    `study run` writes anew.
    """
    with suppress(UserError):
        if plan := read_plan(directory):
            return Located(plan.study, directory, {cell.name: cell.axes for cell in plan.cells}, True)
    return None
