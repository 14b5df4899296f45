"""`NeuralCollapse` with features from the classifier itself, for loops that pass metrics only predictions."""

from typing import Any
from weakref import finalize, ref

from torch import Tensor, nn

from deq_collapse.metrics.inputs import Array
from deq_collapse.metrics.neural_collapse import NeuralCollapse


class HookedCollapse(NeuralCollapse):
    """`NeuralCollapse` with the `update(preds, target)` of other metrics, e.g. for a positional collection.

    A hook on the classifier records its input; `update` counts that input once, with the classifier's weight
    and bias. A copy of the metric hooks the same classifier. The hook goes with the metric, or by `unhook`.

    Args:
        classifier: has a `weight` (K, d) and a `bias` (K,) or None, and is called on features (N, d).
        kwargs: passed to `NeuralCollapse`.

    Raises:
        ValueError: for a classifier of another kind, and for what `NeuralCollapse` refuses.

    Example:
        >>> import torch
        >>> from torchmetrics import MetricCollection
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
        >>> both = MetricCollection([MulticlassAccuracy(3), HookedCollapse(model[-1], metrics=["nc3"])])
        >>> both.update(model(torch.randn(9, 5)), torch.arange(9) % 3)
        >>> sorted(both.compute())
        ['MulticlassAccuracy', 'nc3']

    """

    def __init__(self, classifier: nn.Module, **kwargs: Any) -> None:
        weight = getattr(classifier, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            raise ValueError(
                f"the classifier needs a weight of shape (K, d), got {type(classifier).__name__}"
            )
        super().__init__(*weight.shape, **kwargs)
        self._tap = _Tap(classifier)

    def update(self, preds: object, target: Tensor | Array) -> None:  # type: ignore[override]
        """Count the classifier's latest input.

        Args:
            preds: ignored.
            target: labels (N,).

        Raises:
            ValueError: if the classifier was not called since the last update; and as `NeuralCollapse`.

        """
        features, self._tap.features = self._tap.features, None
        if features is None:
            raise ValueError("the classifier was not called since the last update")
        classifier = self._tap.classifier
        super().update(features, target, classifier.weight, classifier.bias)

    def unhook(self) -> None:
        """Leave the classifier as it was; `update` has nothing to count then."""
        self._tap.remove()


class _Tap:
    """A classifier and its latest input. Not a module, so that the metric does not own the classifier."""

    def __init__(self, classifier: nn.Module) -> None:
        self.classifier: Any = classifier
        self.features: Tensor | None = None
        handle = classifier.register_forward_pre_hook(_Hook(self), with_kwargs=True)
        self.remove = finalize(self, handle.remove)

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Tap":
        return _Tap(self.classifier)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Tap, (self.classifier,)


class _Hook:
    """Records inputs for a tap while it exists; a copy or pickle made with the classifier records nothing."""

    def __init__(self, tap: _Tap | None = None) -> None:
        self.tap = (lambda: None) if tap is None else ref(tap)

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        tap = self.tap()
        features = next((value for value in (*inputs, *named.values()) if isinstance(value, Tensor)), None)
        if tap is not None and features is not None:
            tap.features = features.detach()

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Hook":
        return _Hook()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, ()
