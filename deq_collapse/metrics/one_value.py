"""One value of `NeuralCollapse` as a metric of its own, for code that expects a number from `compute`."""

from typing import Any

from torch import Tensor

from deq_collapse.metrics.known import LACKS
from deq_collapse.metrics.neural_collapse import NeuralCollapse
from deq_collapse.metrics.table import TABLE


class CollapseValue(NeuralCollapse):
    """`NeuralCollapse` of a single scalar value, for Lightning's `self.log` and for `MetricTracker`.

    Each accumulates its own states; a `MetricCollection` of several shares equal ones.

    Args:
        value: its name, from `TABLE`.
        num_classes: K >= 2.
        num_features: d, the width of the features.
        kwargs: passed to `NeuralCollapse`.

    Raises:
        ValueError: for an unknown name, and for what `NeuralCollapse` refuses.

    Example:
        >>> import torch
        >>> metric = CollapseValue("nc1", num_classes=3, num_features=4)
        >>> metric.update(torch.eye(4)[:3].repeat(2, 1), torch.arange(3).repeat(2))
        >>> round(float(metric.compute()), 3)
        0.0

    """

    def __init__(self, value: str, num_classes: int, num_features: int, **kwargs: Any) -> None:
        super().__init__(num_classes, num_features, metrics=[value], **kwargs)

    def compute(self) -> Tensor:  # type: ignore[override]  # a number instead of a dict
        """Return the value, a float64 scalar.

        Raises:
            ValueError: if it needs something that was not given, and see `NeuralCollapse.compute`.

        """
        (name,), values = self.metrics, super().compute()
        if name not in values:
            lacks = sorted(TABLE[name].needs - self._known(spreads=False).given)
            raise ValueError(f"{name} cannot be known: {LACKS[lacks[0]]}")
        return values[name]
