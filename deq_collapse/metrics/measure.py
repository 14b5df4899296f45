"""All values of a trained classifier in one call."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from deq_collapse.metrics.hooked import HookedCollapse
from deq_collapse.metrics.layers import LayerwiseCollapse
from deq_collapse.metrics.modes import evaluating


def measure(
    model: nn.Module, loader: Iterable[Any], classifier: str | None = None, **kwargs: Any
) -> dict[str, float]:
    """Return every value of neural collapse of a model on the data of a loader, from one pass in eval mode.

    Args:
        model: called on a batch's inputs, moved to the device of its parameters; its mode is restored.
        loader: yields batches whose first two entries are inputs and labels (N,), integers in 0..K-1.
        classifier: name of the linear layer whose input is the features, as in ``model.named_modules()``; the
            last `torch.nn.Linear` by default, which must be the last one called, too.
        kwargs: passed to `NeuralCollapse`: ``metrics``, ``majority``, ``class_counts`` (of training, if the
            loader has test images), ...

    Returns:
        Values by the names of `TABLE`.

    Raises:
        ValueError: if there is no linear layer (of that name), if another is called last, for batches of
            another kind, and for what `NeuralCollapse` refuses.

    Example:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> data = TensorDataset(torch.randn(30, 1, 4, 4), torch.arange(30) % 3)
        >>> values = measure(model, DataLoader(data, batch_size=10))
        >>> [name for name in ('nc1', 'nc2_etf_means', 'nc3') if name in values]
        ['nc1', 'nc2_etf_means', 'nc3']

    """
    last = _linear(model, classifier)
    metric = HookedCollapse(last, **kwargs).to(last.weight.device)
    try:
        for _, labels in _passes(model, loader, last if classifier is None else None):
            metric.update(None, labels)
    finally:
        metric.unhook()
    return {name: float(value) for name, value in metric.compute().items()}


def measure_along(
    model: nn.Module,
    loader: Iterable[Any],
    modules: Sequence[str],
    classifier: str | None = None,
    **kwargs: Any,
) -> dict[str, dict[str, float]]:
    """Return the same after every call of some modules, in the order of the computation.

    Args:
        model: see `measure`.
        loader: see `measure`.
        modules: names or patterns, see `LayerwiseCollapse`.
        classifier: see `measure`; values that compare features with it exist where the width equals that of
            its input.
        kwargs: passed to `LayerwiseCollapse`: ``metrics``, ``pool``, ``majority``, ...

    Returns:
        Values keyed by the module's name, followed by ``#2``, ``#3``, ... for its later calls in a pass.

    Raises:
        ValueError: see `measure`, and for a name that no module has.

    """
    last = _linear(model, classifier)
    with LayerwiseCollapse(model, modules, num_classes=last.out_features, **kwargs) as layers:
        for _, labels in _passes(model, loader, last if classifier is None else None):
            layers.update(labels, last.weight, last.bias)
    return {
        point.module + (f"#{point.call}" if point.call > 1 else ""): {
            name: float(value) for name, value in point.values.items()
        }
        for point in layers.compute()
    }


def _linear(model: nn.Module, name: str | None) -> nn.Linear:
    layers = {place: module for place, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no torch.nn.Linear: use NeuralCollapse with its weight")
    place = list(layers)[-1] if name is None else name
    if place not in layers:
        raise ValueError(f"no torch.nn.Linear is named {name!r}; there are {', '.join(map(repr, layers))}")
    return layers[place]


@torch.no_grad()
def _passes(model: nn.Module, loader: Iterable[Any], last: nn.Linear | None) -> Iterable[tuple[Any, Tensor]]:
    """Calls the model on every batch in eval mode; yields its outputs and the labels. Where a layer was taken
    for the classifier because it is the last, the first batch must call it last.
    """
    device = next(model.parameters()).device
    with evaluating(model):
        for place, batch in enumerate(loader):
            if not isinstance(batch, Sequence) or len(batch) < 2:
                raise ValueError(f"a batch is (inputs, labels, ...), got {type(batch).__name__}")
            inputs, labels = batch[:2]
            if not hasattr(inputs, "to"):
                raise ValueError(f"a batch's inputs are a tensor, got {type(inputs).__name__}")
            with _must_be_last(model, last) if place == 0 and last is not None else nullcontext():
                outputs = model(inputs.to(device))
            yield outputs, torch.as_tensor(labels).to(device)


@contextmanager
def _must_be_last(model: nn.Module, last: nn.Linear) -> Iterator[None]:
    names: dict[nn.Module, str] = {
        layer: name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)
    }
    called: list[nn.Module] = []
    hooks = [layer.register_forward_pre_hook(lambda layer, _: called.append(layer)) for layer in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if called and called[-1] is not last:
        raise ValueError(
            f"the last torch.nn.Linear of the model is {names[last]!r}, but {names[called[-1]]!r} is the last"
            " one called: say which is the classifier, classifier=..."
        )
