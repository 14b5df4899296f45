"""Checks of what a user hands to `NeuralCollapse`: one clear ValueError per mistake."""

from collections.abc import Collection, Sequence

from torch import Tensor


def check_arguments(
    num_classes: int,
    num_features: int,
    unknown: Collection[str],
    majority: Sequence[int] | None,
    class_counts: Sequence[int] | None,
) -> None:
    """Raise ValueError if arguments of the constructor are out of range or `unknown` names were asked for."""
    if num_classes < 2 or num_features < 1:
        raise ValueError(
            f"num_classes must be >= 2 and num_features >= 1, got {num_classes} and {num_features}"
        )
    if unknown:
        raise ValueError(f"unknown metrics {sorted(unknown)}; `deq_collapse.metrics.TABLE` lists those known")
    if (
        majority is not None
        and not 0 < len(set(majority) & set(range(num_classes))) == len(majority) < num_classes
    ):
        raise ValueError(f"majority must name some, not all, of 0..{num_classes - 1}, got {list(majority)}")
    if class_counts is not None and (len(class_counts) != num_classes or min(class_counts) < 1):
        raise ValueError(f"class_counts must be {num_classes} positive numbers, got {list(class_counts)}")


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
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {low}..{high}")
