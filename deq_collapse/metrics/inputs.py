"""Checks of what a user hands to `NeuralCollapse`: one clear ValueError per mistake."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, get_args

from torch import Tensor


def check_sizes(num_classes: int, num_features: int) -> None:
    """Raise ValueError if there are too few classes or features."""
    if num_classes < 2 or num_features < 1:
        raise ValueError(
            f"num_classes must be >= 2 and num_features >= 1, got {num_classes} and {num_features}"
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
    if features.ndim != 2 or features.shape[1] != num_features or not features.is_floating_point():
        raise ValueError(
            f"features must be (N, {num_features}) floats, got {tuple(features.shape)} {features.dtype}"
        )
    if labels.shape != features.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"labels must be ({len(features)},) integers, got {tuple(labels.shape)} {labels.dtype}"
        )
    if weight is not None and weight.shape != (num_classes, num_features):
        raise ValueError(f"weight must be ({num_classes}, {num_features}), got {tuple(weight.shape)}")
    if bias is not None and bias.shape != (num_classes,):
        raise ValueError(f"bias must be ({num_classes},), got {tuple(bias.shape)}")
    if labels.device.type == "cpu" and len(labels):
        low, high = (int(label) for label in labels.long().aminmax())
        if low < 0 or high >= num_classes:
            raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {low}..{high}")
