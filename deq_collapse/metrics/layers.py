"""Neural collapse along the computation of any network: after every call of the named modules."""

import itertools
import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from deq_collapse.metrics.neural_collapse import NeuralCollapse
from deq_collapse.metrics.taps import Pool, Taps, average, named_modules

Key = tuple[str, int]
"""A module's name and the number of its call in one forward pass, from 1."""

FIRST, PER_DOUBLING = 16, 4
"""Calls of `spaced`: all up to the first number, then so many for each doubling."""

Seen = tuple[list[Key], dict[Key, int]]
"""What a rank saw: the calls, in order, and the widths of the features at its points."""

METRICS = (
    "nc1",
    "nc1_trace_ratio",
    "cdnv",
    "nc2_norm_means",
    "nc2_angle_means",
    "nc2_etf_means",
    "nc3",
    "nc3_product",
    "nc3_alignment",
    "minority_cos_means_mean",
)
"""Metrics measured by default: those that change along a network and need no stored features."""


@dataclass(frozen=True)
class Point:
    """One place of the computation.

    Attributes:
        module: its name, as in ``model.named_modules()``.
        call: 1 for the first call of the module in a forward pass, 2 for the second, ...
        place: number of calls of all modules before it, in the order of the computation.
        values: what `NeuralCollapse.compute` returns for the features there.

    """

    module: str
    call: int
    place: int
    values: dict[str, Tensor]


def every(call: int) -> int:
    """Give every call of a module a point."""
    return call


def spaced(call: int) -> int:
    """Give the first 16 calls of a module a point, and then four for each doubling of their number."""
    if call <= FIRST:
        return call
    steps = (math.ceil(FIRST * 2 ** (k / PER_DOUBLING)) for k in itertools.count(1))
    return next(step for step in steps if step >= call)


class LayerwiseCollapse:
    """Neural collapse after every call of some modules, e.g. the blocks of a ResNet or a solver's iterates.

    In a ``with`` block, hooks on the modules record their outputs, and `update` counts the batch. A module
    called several times in one pass (tied weights, the iterates of a solver) has one point per call. If
    passes make different numbers of calls, the last call of a module in a pass also counts for the later
    points: every point counts every sample, and the last point is the final output of the module. A point
    takes the memory of its metric, about 2 K d + d^2 float64 values, and the time of an update, N d^2; a call
    takes its N d features from the pass to `update`. For many calls of wide features see `spacing`.

    The caller sets mode and autograd, usually ``model.eval()`` and ``torch.no_grad()``. Under DDP all ranks
    call `compute`; the number of calls they saw may differ and may be zero.

    Args:
        model: called as usual; its outputs and gradients do not change.
        modules: names as in ``model.named_modules()``, or patterns such as ``layer*``, whose ``*`` does not
            match across a dot.
        num_classes: K >= 2.
        metrics: names of the values to compute, from `TABLE`. ``nc4`` would keep all features of all points.
        pool: turns a module's output into features (N, d); by default `average`, over positions. For a class
            token use ``lambda tokens: tokens[:, 0]``, for maps with channels last
            ``lambda z: z.mean((1, 2))``.
        spacing: maps the number of a call to that of the first one from there on that has a point: `every`
            one by default, or fewer, such as `spaced`. The last call always has one.
        kwargs: passed to `NeuralCollapse`, e.g. ``majority``, ``class_counts``, ``process_group``.

    Raises:
        ValueError: for a name that no module has, and for what `NeuralCollapse` refuses.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> model = nn.Sequential(body, nn.Linear(8, 3)).eval()
        >>> with LayerwiseCollapse(model, ["0.*"], num_classes=3, metrics=["nc1", "nc3"]) as layers:
        ...     for _ in range(2):
        ...         logits = model(torch.randn(6, 1, 5, 5))
        ...         layers.update(torch.arange(6) % 3, model[1].weight, model[1].bias)
        >>> [(point.module, point.call, *point.values) for point in layers.compute()][:2]
        [('0.0', 1, 'nc1', 'nc3'), ('0.1', 1, 'nc1', 'nc3')]

    """

    def __init__(
        self,
        model: nn.Module,
        modules: Sequence[str],
        num_classes: int,
        metrics: Sequence[str] = METRICS,
        pool: Pool = average,
        spacing: Callable[[int], int] = every,
        **kwargs: Any,
    ) -> None:
        self._spacing = spacing
        self._arguments = {"num_classes": num_classes, "metrics": metrics, **kwargs}
        NeuralCollapse(num_features=1, **self._arguments)  # reports a mistake now, not during a pass
        self._taps = Taps(model, named_modules(model, modules), pool)
        self._metrics: dict[Key, NeuralCollapse] = {}
        self._order: list[Key] = []

    def __enter__(self) -> "LayerwiseCollapse":
        """Hook the modules."""
        self._taps.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the hooks, whatever happened."""
        self._taps.__exit__()

    def update(self, labels: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
        """Count the forward pass just made.

        Args:
            labels: (N,), integers in 0..K-1.
            weight: (K, d) classifier rows; a point with features of another width has no values of the
                classifier.
            bias: (K,), or None.

        Raises:
            ValueError: if a module was not called in that pass, and for what `NeuralCollapse` refuses.

        """
        calls: dict[str, list[Tensor]] = {name: [] for name in self._taps.names}
        keys = []
        for name, features in self._taps.take():
            calls[name].append(features)
            keys.append((name, len(calls[name])))
        for name, outputs in calls.items():
            if not outputs:
                raise ValueError(f"{name or 'the model'} was not called in a forward pass before this update")
        # The last call of a module also counts for the next point, where passes with more calls go on.
        points = [(name, self._spacing(call)) for name, call in self._measured(keys)]
        opened = [key for key in points if key not in self._metrics]
        for name, call in opened:
            features = calls[name][min(call, len(calls[name])) - 1]
            self._open((name, call), features.shape[-1], features.device)
        batches = {}
        for (name, call), metric in self._metrics.items():
            features = calls[name][min(call, len(calls[name])) - 1]
            fits = weight is not None and weight.shape[-1] == metric.num_features
            batches[name, call] = (features, labels, *((weight, bias) if fits else (None, None)))
        try:
            for key, batch in batches.items():
                self._metrics[key].check(*batch)
        except ValueError:
            for key in opened:
                del self._metrics[key]
            raise
        self._order = merged(self._order, keys)
        for key, batch in batches.items():
            self._metrics[key].update(*batch)

    def compute(self) -> list[Point]:
        """Return all points in the order of the computation, over all ranks.

        Raises:
            ValueError: if nothing was counted, and for what `NeuralCollapse.compute` refuses.

        """
        self._agree()
        if not self._order:
            raise ValueError("nothing was counted: call the model, then `update`, inside the `with` block")
        return [Point(*key, self._order.index(key), self._value(*key)) for key in self._measured(self._order)]

    def _measured(self, calls: Sequence[Key]) -> list[Key]:
        """Return the calls that have a point: those of the spacing, and the last of each module."""
        last = dict(sorted(calls))
        return [(name, call) for name, call in calls if call in (self._spacing(call), last[name])]

    def _value(self, name: str, call: int) -> dict[str, Tensor]:
        try:
            values: dict[str, Tensor] = self._metrics[name, self._spacing(call)].compute()
        except ValueError as error:
            raise ValueError(f"{name}, call {call}: {error}") from error
        return values

    def _open(self, key: Key, width: int, device: torch.device) -> None:
        """Make the metric of a new point, which starts from what the point before it has counted."""
        if key in self._metrics:
            return
        earlier = [call for name, call in self._metrics if name == key[0] and call < key[1]]
        before = self._metrics[key[0], max(earlier)] if earlier else None
        if before is not None and before.update_called:
            group = before.process_group  # which cannot be copied
            self._metrics[key] = deepcopy(before, {id(group): group})
        else:
            self._metrics[key] = NeuralCollapse(num_features=width, **self._arguments).to(device)

    def _agree(self) -> None:
        """Give every rank the points of all: they synchronise at each, and would wait for a rank that lacks
        one.
        """
        widths = {key: metric.num_features for key, metric in self._metrics.items()}
        seen, self._order = self._of_all_ranks((self._order, widths)), []
        for calls, points in seen:
            self._order = merged(self._order, calls)
            for key, width in sorted(points.items()):
                if key not in self._metrics:
                    device = next(self._taps.model.parameters(), torch.empty(0)).device
                    self._open(key, width, device)
                    nothing = torch.empty(0, width, device=device)
                    self._metrics[key].update(nothing, nothing[:, 0].long())

    def _of_all_ranks(self, own: Seen) -> list[Seen]:
        alone = not (distributed.is_available() and distributed.is_initialized())
        if alone or not self._arguments.get("sync_on_compute", True):
            return [own]
        group = self._arguments.get("process_group")
        gathered: list[Seen] = [([], {})] * distributed.get_world_size(group)
        distributed.all_gather_object(gathered, own, group)
        return gathered


def merged(order: Sequence[Key], others: Sequence[Key]) -> list[Key]:
    """Return `order` with the keys of `others` that it lacks, each inserted after its predecessor there."""
    result, place = list(order), 0
    for key in others:
        if key in result:
            place = result.index(key)
        else:
            result.insert(place, key)
        place += 1
    return result
