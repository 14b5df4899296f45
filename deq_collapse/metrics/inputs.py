"""Checks of the arguments of `NeuralCollapse`: one clear ValueError per mistake."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral
from typing import Any, Protocol, get_args

import torch
from torch import Tensor


def check_sizes(num_classes: int, num_features: int) -> None:
    """Raise ValueError if there are too few classes or features, or if either number is not an integer."""
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
        near = {word: None for name in sorted(unknown) for word in get_close_matches(name, known)}
        hint = (
            f"did you mean {', '.join(near)}?" if near else "`deq_collapse.metrics.TABLE` lists those known"
        )
        raise ValueError(f"unknown metrics {sorted(unknown)}; {hint}")
    return names


def check_choices(**choices: tuple[str, Any]) -> None:
    """Raise ValueError if a value is not allowed by its Literal type."""
    for name, (value, allowed) in choices.items():
        if value not in get_args(allowed):
            raise ValueError(f"{name} must be {' or '.join(map(repr, get_args(allowed)))}, got {value!r}")


def check_majority(majority: Iterable[int] | None, num_classes: int) -> list[int] | None:
    """Return majority classes as integers; raise ValueError unless they are some, not all, of the classes."""
    if majority is None:
        return None
    classes = [int(c) for c in majority]
    if not 0 < len(set(classes) & set(range(num_classes))) == len(classes) < num_classes:
        raise ValueError(f"majority must name some, not all, of 0..{num_classes - 1}, got {classes}")
    return classes


def check_counts(
    class_counts: Iterable[int] | Mapping[int, int] | None, num_classes: int
) -> list[int] | None:
    """Return class counts as integers, or raise ValueError if they are not one positive number per class."""
    if class_counts is None:
        return None
    if isinstance(class_counts, Mapping):
        strange = sorted(set(class_counts) - set(range(num_classes)), key=str)
        if strange:
            raise ValueError(f"class_counts has counts of {strange}, which are not in 0..{num_classes - 1}")
        class_counts = [class_counts.get(c, 0) for c in range(num_classes)]
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


class Array(Protocol):
    """Anything that NumPy can convert to an array, usually an array itself."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a NumPy array."""


def tensor_of(value: Any, device: torch.device | None = None) -> Any:
    """Convert an array or a list to a tensor on `device`; return tensors and anything else unchanged."""
    if isinstance(value, Tensor) or not (isinstance(value, list | tuple) or hasattr(value, "__array__")):
        return value
    try:
        return torch.tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError):  # a list of words, rows of unequal lengths
        return value


def check_batch(
    features: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    num_classes: int,
    num_features: int,
) -> None:
    """Raise ValueError if shapes or types do not fit, or if labels on the CPU are out of range.

    Labels on an accelerator are not checked, because that would wait for the device.
    """
    if not _floats(features) or features.ndim != 2 or features.shape[1] != num_features:
        maps = _floats(features) and features.ndim > 2
        hint = "; average maps over their positions first, say features.flatten(2).mean(2)" if maps else ""
        raise ValueError(f"features must be (N, {num_features}) floats, got {_kind(features)}{hint}")
    whole = isinstance(labels, Tensor) and not labels.is_floating_point() and not labels.is_complex()
    if not whole or labels.shape != features.shape[:1]:
        raise ValueError(f"labels must be ({len(features)},) integers, got {_kind(labels)}")
    shape = (num_classes, num_features)
    if weight is not None and (not _floats(weight) or weight.shape != shape):
        raise ValueError(f"weight must be {shape} floats, got {_kind(weight)}")
    if bias is not None and (not _floats(bias) or bias.shape != shape[:1]):
        raise ValueError(f"bias must be ({num_classes},) floats, got {_kind(bias)}")
    if labels.device.type == "cpu":
        check_labels(labels, num_classes)


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise ValueError if labels (N,) are out of range."""
    if len(labels):
        low, high = (int(label) for label in labels.long().aminmax())
        if low < 0 or high >= num_classes:
            raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {low}..{high}")


def finite_rows(features: Tensor) -> Tensor:
    """Whether each of features (N, d) has a finite sum, in float32 or better: half precision overflows."""
    return features.sum(1, dtype=torch.promote_types(features.dtype, torch.float32)).isfinite()


def check_finite(features: Tensor) -> None:
    """Raise ValueError if some of features (N, d) are not finite."""
    spoilt = int((~features.isfinite().all(1)).sum())
    if spoilt:
        raise ValueError(f"{spoilt} samples have non-finite features; leave them out")


def _floats(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _kind(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
