"""A study file: configurations that all runs share, and axes whose labels each add a configuration."""

import itertools
import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from deq_collapse.config_files import read_yaml
from deq_collapse.errors import UserError

KEYS = ("name", "output", "config", "axes", "seeds")


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        axes: its label on each axis.
        configs: what ``--config`` takes, files or YAML, in order.
    """

    axes: dict[str, str]
    configs: tuple[str, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """The labels joined; also the name of its directory."""
        return "-".join(f"seed{label}" if axis == "seed" else label for axis, label in self.axes.items())


@dataclass(frozen=True)
class StudyFile:
    """A study as its file describes it.

    Attributes:
        name: what it is called.
        directory: where it leaves its files: ``<output>/<name>``.
        cells: its runs, in the order of the grid.
    """

    name: str
    directory: Path
    cells: tuple[Cell, ...]


def read_study_file(path: Path) -> StudyFile:
    """Reads a study file.

    Its keys are ``name``; ``output`` (default ``outputs/studies``); ``config``, files that all runs share;
    ``axes``, for each axis its labels, and for each label a file or a configuration; ``seeds``. Files are
    named relative to the study file.

    Raises:
        UserError: for a missing file, an unknown key, or a grid without runs.
    """
    content = read_yaml(path)
    for key in content:
        if key not in KEYS:
            near = get_close_matches(key, KEYS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"{path}: unknown key {key}{hint}; a study file has {', '.join(KEYS)}.")
    if not isinstance(content.get("name"), str):
        raise UserError(f"{path}: a study needs a name.")
    shared = tuple(_config(path, entry) for entry in _list(path, content, "config"))
    axes = dict(_axes(path, content.get("axes") or {}))
    axes["seed"] = {
        str(seed): yaml.safe_dump({"seed_everything": seed}) for seed in _list(path, content, "seeds", [0])
    }
    cells = tuple(
        Cell(
            dict(zip(axes, labels, strict=True)),
            shared + tuple(axes[axis][label] for axis, label in zip(axes, labels, strict=True)),
        )
        for labels in itertools.product(*axes.values())
    )
    if not cells:
        raise UserError(f"{path}: an axis without labels leaves no runs.")
    return StudyFile(content["name"], Path(content.get("output", "outputs/studies"), content["name"]), cells)


def _axes(path: Path, axes: Any) -> dict[str, dict[str, str]]:
    if not isinstance(axes, dict) or not all(isinstance(labels, dict) for labels in axes.values()):
        raise UserError(
            f"{path}: axes maps each axis to its labels, and each label to a file or a configuration."
        )
    return {
        str(axis): {str(label): _config(path, entry) for label, entry in labels.items()}
        for axis, labels in axes.items()
    }


def _config(path: Path, entry: Any) -> str:
    """What ``--config`` takes for an entry of a study file."""
    if isinstance(entry, dict):
        return yaml.safe_dump(entry, sort_keys=False)
    if not isinstance(entry, str):
        raise UserError(f"{path}: {entry!r} is neither a file nor a configuration.")
    file = path.parent / entry
    if not file.is_file():
        raise UserError(f"{path} names {entry}, but there is no file {os.path.normpath(file)}.")
    return os.path.normpath(file)


def _list(path: Path, content: dict[str, Any], key: str, default: list[Any] | None = None) -> list[Any]:
    value = content.get(key, default or [])
    if not isinstance(value, list):
        raise UserError(f"{path}: {key} is a list.")
    return value
