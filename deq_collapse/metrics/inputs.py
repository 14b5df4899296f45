"""Checks of what a user hands to `NeuralCollapse`: one clear ValueError per mistake."""

import math
from collections.abc import Collection, Iterable, Sequence
from numbers import Integral
from typing import Any, get_args

from torch import Tensor


def check_sizes(num_classes: int, num_features: int) -> None:
    """Raise ValueError if there are too few classes or features, or numbers of them that are none."""
    sizes = isinstance(num_classes, Integral) and isinstance(num_features, Integral)
    if not sizes or num_classes < 2 or num_features < 1:
        raise ValueError(
            f"num_classes must be an integer >= 2 and num_features one >= 1, got {num_classes!r} and "
            f"{num_features!r}"
        )


def check_names(metrics: Sequence[str] | str, known: Collection[str]) -> tuple[str, ...]:
    """Return the names, or raise ValueError if one is unknown."""
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    unknown = set(names) - set(known)
    if unknown:
        raise ValueError(f"unknown metrics {sorted(unknown)}; `deq_collapse.metrics.TABLE` lists those known")
    return names


def check_choices(**choices: tuple[str, Any]) -> None:
    """Raise ValueError if a value is not one of its Literal type's."""
    for name, (value, allowed) in choices.items():
        if value not in get_args(allowed):
            raise ValueError(f"{name} must be {' or '.join(map(repr, get_args(allowed)))}, got {value!r}")


def check_majority(majority: Iterable[int] | None, num_classes: int) -> list[int] | None:
    """Return majority classes as integers, or raise ValueError if they are not some of all classes."""
    if majority is None:
        return None
    classes = [int(c) for c in majority]
    if not 0 < len(set(classes) & set(range(num_classes))) == len(classes) < num_classes:
        raise ValueError(f"majority must name some, not all, of 0..{num_classes - 1}, got {classes}")
    return classes


def check_counts(class_counts: Iterable[int] | None, num_classes: int) -> list[int] | None:
    """Return class counts as integers, or raise ValueError if they are not one positive number per class."""
    if class_counts is None:
        return None
    counts = [int(n) for n in class_counts]
    if len(counts) != num_classes or min(counts) < 1:
        raise ValueError(f"class_counts must be {num_classes} positive numbers, got {counts}")
    return counts


def check_decays(decays: Iterable[float]) -> tuple[float, float]:
    """Return two decays, or raise ValueError if they are not two finite numbers >= 0."""
    values = tuple(float(decay) for decay in decays)
    if len(values) != 2 or not all(0 <= value < math.inf for value in values):
        raise ValueError(
            f"decays must be two numbers >= 0, of the classifier and of the features, got {values}"
        )
    return values


def check_batch(
    features: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    num_classes: int,
    num_features: int,
) -> None:
    """Raise ValueError if shapes or types do not fit, or labels on the CPU are out of range.

    Labels on an accelerator are not looked at: the device would have to be waited for.
    """
    if not _floats(features) or features.ndim != 2 or features.shape[1] != num_features:
        raise ValueError(f"features must be (N, {num_features}) floats, got {_kind(features)}")
    whole = isinstance(labels, Tensor) and not labels.is_floating_point() and not labels.is_complex()
    if not whole or labels.shape != features.shape[:1]:
        raise ValueError(f"labels must be ({len(features)},) integers, got {_kind(labels)}")
    shape = (num_classes, num_features)
    if weight is not None and (not _floats(weight) or weight.shape != shape):
        raise ValueError(f"weight must be {shape} floats, got {_kind(weight)}")
    if bias is not None and (not _floats(bias) or bias.shape != shape[:1]):
        raise ValueError(f"bias must be ({num_classes},) floats, got {_kind(bias)}")
    if labels.device.type == "cpu" and len(labels):
        low, high = (int(label) for label in labels.long().aminmax())
        if low < 0 or high >= num_classes:
            raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {low}..{high}")


def _floats(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _kind(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
