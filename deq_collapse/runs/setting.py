"""What a setting is called: the labels of a run's axes in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deq_collapse.runs.files import CONFIG

AXES_OF_IMBALANCE = ("imbalance", "K_A", "R")
"""Axes of a study that set the class counts and nothing else; settings that share all others are a group."""
AXES_OF_DATA = ("data", "dataset")
"""Axes of a study whose labels are data sets; these have their own names, see `study.call_data_by_name`."""
SIGNS = {"num_majority": "K_A", "ratio": "R"}
"""The letters of those options of an imbalance that its label may name: ``step_ka3_r10``."""


def refinement_of(axes: Mapping[str, str], solver: object) -> str:
    """`explicit` or `equilibrium`, or what a study calls it."""
    return axes.get("refinement", "equilibrium" if solver else "explicit")


def short(refinement: str) -> str:
    """The name of a refinement as a heading and in a figure."""
    return {"equilibrium": "DEQ"}.get(refinement, refinement)


def class_label(class_path: str) -> str:
    """The label of a class: ``deq_collapse.data.LongTailed`` is ``long_tailed``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_path.rpartition(".")[2]).lower()


def imbalance_words(imbalance: Mapping[str, Any]) -> dict[str, str]:
    """The words of an imbalance, given as in a configuration, by the part of a label that names each.

    >>> imbalance_words({"class_path": "data.Step", "init_args": {"num_majority": 3, "ratio": 10.0}})
    {'step': 'step', 'ka3': 'K_A=3', 'r10': 'R=10'}
    """
    kind, options = class_label(imbalance["class_path"]), imbalance.get("init_args") or {}
    known = {sign: options.get(option) for option, sign in SIGNS.items()}
    return {kind: kind.replace("_", "-")} | {
        f"{sign.replace('_', '').lower()}{value:g}": f"{sign}={value:g}"
        for sign, value in known.items()
        if isinstance(value, int | float)
    }


def saved_imbalance(directory: Path) -> dict[str, str]:
    """The words of the imbalance of the run in a directory; none where no configuration was saved."""
    try:
        config = yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8"))
        return imbalance_words(config["data"]["imbalance"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return {}


def in_words(axes: Mapping[str, str], imbalance: Mapping[str, str]) -> dict[str, str]:
    """The labels of a run, readable, by axis: as they stand, but for what names a part of the imbalance.

    >>> step = imbalance_words({"class_path": "data.Step", "init_args": {"num_majority": 3, "ratio": 10.0}})
    >>> in_words({"imbalance": "step_ka3_r10", "loss": "cross_entropy"}, step)
    {'imbalance': 'step, K_A=3, R=10', 'loss': 'cross entropy'}
    """
    return {
        axis: _imbalance_in_words(label, imbalance)
        if axis == "imbalance"
        else label
        if axis == "refinement"
        else label.replace("_", " ")
        for axis, label in axes.items()
    }


def _imbalance_in_words(label: str, imbalance: Mapping[str, str]) -> str:
    for part, words in imbalance.items():
        if "_" in part:
            label = label.replace(part, words)
    first, *rest = label.split("_")
    return first + "".join(f", {imbalance[part]}" if part in imbalance else f" {part}" for part in rest)


def axes_in_words(words: Mapping[str, str]) -> tuple[str, str]:
    """Data and imbalance, and what else the labels of a run say, given `in_words`.

    >>> axes_in_words({"imbalance": "step", "K_A": "3", "R": "10", "family": "free", "refinement": "tied"})
    ('step, K_A=3, R=10', 'free, tied')
    """
    common = {axis: label for axis, label in words.items() if axis in (*AXES_OF_IMBALANCE, *AXES_OF_DATA)}
    rest = {axis: label for axis, label in words.items() if axis not in (*common, "seed")}
    return setting_in_words(common), ", ".join(short(label) for label in rest.values())


def setting_in_words(words: Mapping[str, str]) -> str:
    """What the labels of a run but those of refinement and seed say, given `in_words`.

    >>> setting_in_words({"data": "CIFAR-10", "imbalance": "step", "K_A": "3", "R": "10", "loss": "mse"})
    'CIFAR-10; step, K_A=3, R=10; loss mse'
    """
    parts: dict[str, list[str]] = {}
    for axis, label in words.items():
        if axis in ("refinement", "seed"):
            continue
        if axis in AXES_OF_DATA:
            parts[axis] = [label]
        elif axis == "imbalance":
            parts.setdefault("imbalance", []).insert(0, label)
        elif axis in AXES_OF_IMBALANCE:
            parts.setdefault("imbalance", []).append(f"{axis}={label}")
        else:
            parts[axis] = [f"{axis.replace('_', ' ')} {label}"]
    return "; ".join(", ".join(entries) for entries in parts.values())
