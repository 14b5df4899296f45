"""What a setting is called: the labels of a run's axes in words."""

from __future__ import annotations

import re
from collections.abc import Mapping

AXES_OF_IMBALANCE = ("imbalance", "K_A", "R")
"""Axes of a study that set the class counts and nothing else; settings that share all others are a group."""
AXES_OF_DATA = ("data", "dataset")
"""Axes of a study whose labels are data sets; these have their own names, see `study.call_data_by_name`."""


def refinement_of(axes: Mapping[str, str], solver: object) -> str:
    """`explicit` or `equilibrium`, or what a study calls it."""
    return axes.get("refinement", "equilibrium" if solver else "explicit")


def short(refinement: str) -> str:
    """The name of a refinement as a heading and in a figure."""
    return {"equilibrium": "DEQ"}.get(refinement, refinement)


def axes_in_words(axes: Mapping[str, str]) -> tuple[str, str]:
    """Data and imbalance, and what else a run's axes say, in words.

    >>> axes_in_words({"imbalance": "step", "K_A": "3", "R": "10", "family": "free", "refinement": "tied"})
    ('step, K_A=3, R=10', 'free, tied')
    """
    common = {axis: label for axis, label in axes.items() if axis in (*AXES_OF_IMBALANCE, *AXES_OF_DATA)}
    rest = {axis: label for axis, label in axes.items() if axis not in (*common, "seed")}
    words = [
        short(label) if axis == "refinement" else label.replace("_", " ") for axis, label in rest.items()
    ]
    return setting_in_words(common), ", ".join(words)


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
