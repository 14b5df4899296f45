"""The name of a setting: the labels of a run's axes in words."""

from __future__ import annotations

from collections.abc import Mapping

AXES_OF_IMBALANCE = ("imbalance", "K_A", "R")
"""Axes of a study that set only the class counts; settings that share all other axes form a group."""
AXES_OF_DATA = ("data", "dataset")
"""Axes of a study whose labels are data sets, which have their own names; see `study.call_data_by_name`."""


def refinement_of(axes: Mapping[str, str], solver: object) -> str:
    """`explicit`, `equilibrium`, or the study's own label."""
    return axes.get("refinement", "equilibrium" if solver else "explicit")


def short(refinement: str) -> str:
    """The name of a refinement in headings and figures.

    >>> short("equilibrium"), short("equilibrium_ift"), short("tied_phantom")
    ('DEQ', 'DEQ ift', 'tied phantom')
    """
    first, *rest = refinement.split("_")
    return " ".join(("DEQ" if first == "equilibrium" else first, *rest))


def in_words(axes: Mapping[str, str], imbalance: Mapping[str, str]) -> dict[str, str]:
    """The labels of a run in words, by axis: unchanged, except for those that name parts of the imbalance.

    Args:
        axes: the labels.
        imbalance: the words of its parts by their labels, see `config.imbalance_words`.

    >>> step = {"step": "step", "ka3": "K_A=3", "r10": "R=10"}
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
    """Data and imbalance, and the other labels of a run, given `in_words`.

    >>> axes_in_words({"imbalance": "step", "K_A": "3", "R": "10", "family": "free", "refinement": "tied"})
    ('step, K_A=3, R=10', 'free, tied')
    """
    common = {axis: label for axis, label in words.items() if axis in (*AXES_OF_IMBALANCE, *AXES_OF_DATA)}
    rest = {axis: label for axis, label in words.items() if axis not in (*common, "seed")}
    return setting_in_words(common), ", ".join(short(label) for label in rest.values())


def setting_in_words(words: Mapping[str, str]) -> str:
    """The labels of a run, except refinement and seed, given `in_words`.

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
