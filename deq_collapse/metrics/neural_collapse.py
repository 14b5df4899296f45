"""Neural collapse as one torchmetrics Metric, exact in one pass and across ranks (Papyan 2020 and later)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor

from deq_collapse.metrics.accumulate import accumulate
from deq_collapse.metrics.classes import class_values
from deq_collapse.metrics.fixed_means import FixedMeans
from deq_collapse.metrics.functional import decide
from deq_collapse.metrics.held_samples import HeldSamples
from deq_collapse.metrics.inputs import (
    Array,
    check_batch,
    check_choices,
    check_counts,
    check_decays,
    check_majority,
    check_names,
    check_sizes,
    finite_rows,
    tensor_of,
)
from deq_collapse.metrics.known import LACKS, Known, Need
from deq_collapse.metrics.moments import Moments, merge
from deq_collapse.metrics.statistics import Centre, ClassStatistics, Scatter, Weighting
from deq_collapse.metrics.table import COSTLY, TABLE, in_turn

Policy = Literal["raise", "skip"]
DEFAULT = tuple(name for name in TABLE if name not in COSTLY)


class NeuralCollapse(HeldSamples):
    r"""All measures of neural collapse of features h and, if given, of a classifier argmax(W h + b).

    The model runs once. Class moments are summed in float64 around per-class pivots (`moments.py`), which
    stays exact for collapsed features; ranks exchange O(K d + d^2) numbers, never features. `nc4` needs the
    final class means: features then stay in a buffer on their own rank until `compute`. If they do, and
    K <= 0.4 d, `nc1` is computed from them too, in the span of the means: N d K operations, no (d, d) matrix.
    Otherwise `nc1` costs N d^2 and a (d, d) matrix, and without `nc4` no features are kept.

    Args:
        num_classes: K >= 2.
        num_features: d, the width of the features.
        metrics: names of the values to compute, from `TABLE`; None for all that can be known except the
            `COSTLY` ones. Values not selected cost nothing.
        majority: indices of the majority classes under step imbalance; without it there are no minority
            values.
        class_counts: training counts, a sequence, dict or Counter, which set the SELI, GOF and ReLU targets
            of a test split; None uses the counts seen.
        centre: the global mean is that of the class means ("classes", Papyan 2020) or of all "samples".
        weighting: the within-class covariance weights all "samples" equally (Papyan 2020), or all "classes",
            for which `nc1` keeps features as `nc4` does.
        nonfinite: for NaN or infinite features, "raise" at compute, or "skip" those samples.
        buffer_dtype: type of the buffered features; None keeps their type, and only then are they precise
            enough for `nc1`.
        buffer_device: device of the buffered features; None keeps them on theirs.
        buffer_limit: largest buffer in bytes.
        decays: of the classifier and of the features of one sample in the loss, (weight_decay,
            feature_decay), >= 0; they set the GOF and ReLU targets; zeros give the limit of vanishing decay.
        ignore_index: label of samples to leave out; on an accelerator, finding them waits for the device.
        kwargs: passed to `torchmetrics.Metric`.

    Raises:
        ValueError: at construction, if an argument is out of its range or a name is unknown.

    Example:
        >>> import torch
        >>> metric = NeuralCollapse(num_classes=3, num_features=4, metrics=["nc1", "nc3"])
        >>> metric.update(torch.eye(4)[:3].repeat(2, 1), torch.arange(3).repeat(2), weight=torch.eye(4)[:3])
        >>> {name: round(float(value), 3) for name, value in metric.compute().items()}
        {'nc1': 0.0, 'nc3': 0.367}

    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    moments: Tensor
    classifier: Tensor
    outside: Tensor
    decided: Tensor

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        metrics: Sequence[str] | None = None,
        majority: Sequence[int] | None = None,
        class_counts: Sequence[int] | Mapping[int, int] | None = None,
        centre: Centre = "classes",
        weighting: Weighting = "samples",
        nonfinite: Policy = "raise",
        buffer_dtype: torch.dtype | None = None,
        buffer_device: torch.device | str | None = None,
        buffer_limit: int = 16 * 2**30,
        decays: Sequence[float] = (0.0, 0.0),
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(buffer_dtype, buffer_device, buffer_limit, **kwargs)
        check_sizes(num_classes, num_features)
        check_choices(
            centre=(centre, Centre), weighting=(weighting, Weighting), nonfinite=(nonfinite, Policy)
        )
        if weighting == "classes" and buffer_dtype is not None:
            raise ValueError("weighting='classes' reads nc1 off the features kept: buffer_dtype must be None")
        self.num_classes = num_classes
        self.num_features = num_features
        self.metrics = check_names(DEFAULT if metrics is None else metrics, TABLE)
        if "cdnv_directional" in self.metrics and buffer_dtype is not None:
            raise ValueError("cdnv_directional is read off the features kept: buffer_dtype must be None")
        self.majority = check_majority(majority, num_classes)
        self.class_counts = check_counts(class_counts, num_classes)
        self.decays = check_decays(decays)
        self.centre = centre
        self.weighting = weighting
        self.nonfinite = nonfinite
        self.ignore_index = ignore_index
        self._needs = frozenset[Need]().union(*(TABLE[name].needs for name in self.metrics))
        held = "samples" in self._needs and buffer_dtype is None and 5 * num_classes <= 2 * num_features
        held = held and "matrix" not in self._needs
        self._projects = "within" in self._needs and (held or weighting == "classes")
        self._holds = self._projects or "samples" in self._needs
        self._fixed: FixedMeans | None = None
        self._add_states()
        held_as = (self.buffer_dtype, self.buffer_device, self.buffer_limit) if self._holds else ()
        settings = (num_classes, num_features, ignore_index, *held_as)
        self.mark_states("arguments", repr(settings).encode())

    def _add_states(self) -> None:
        K, d = self.num_classes, self.num_features
        needs_scatter = "matrix" in self._needs or ("within" in self._needs and not self._projects)
        length = Moments.length(K, d, needs_scatter)
        reduction = partial(merge, num_classes=K, num_features=d)
        self.add_zeros("moments", length, reduction)
        if "classifier" in self._needs:
            # Whether a classifier was given at all, the bias, the weight.
            self.add_zeros("classifier", 1 + K + K * d, _last_given)
        if "outside" in self._needs:
            # The number of finite out-of-distribution samples, that of the others, the sum of the finite
            # features.
            self.add_zeros("outside", 2 + d, "sum")
        if "fixed" in self._needs:
            # Samples decided on, and those of them that are not nearest to the mean of the decided class.
            self.add_zeros("decided", 2, "sum")
        if self._holds:
            self.add_held_samples()

    @torch.no_grad()
    def update(
        self,
        features: Tensor | Array,
        labels: Tensor | Array | Sequence[int],
        weight: Tensor | Array | None = None,
        bias: Tensor | Array | None = None,
    ) -> None:
        """Count a batch: all of it or, if this raises, nothing.

        Args:
            features: (N, d), what the classifier receives; any floating type. N may be 0.
            labels: (N,), integers in 0..K-1, or `ignore_index`.
            weight: (K, d) classifier rows that decide this batch; the last ones given are measured.
            bias: (K,), or None for no bias.

        Raises:
            ValueError: for shapes or types that do not fit, for labels out of range (on an accelerator these
                are found at `compute`, to avoid waiting for the device), and for a buffer beyond its limit.

        """
        features, labels, weight, bias = self.check(features, labels, weight, bias)
        # Everything that can fail comes before the first sum changes.
        kept = decided = None
        if len(features) and self._holds:
            kept = self.copied(features)
            decided = torch.full_like(labels, -1) if weight is None else decide(features, weight, bias)
        fixed = None
        if self._fixed is not None and weight is not None and len(features):
            fixed = self._fixed.count(features, labels, weight, bias)
        rows = shift = None
        if weight is not None and "classifier" in self._needs:
            rows = weight.to(self.classifier.device)
            shift = torch.zeros_like(rows[:, 0]) if bias is None else bias.to(rows.device)
        self.make_states_writable()
        moments = Moments.of(self.moments, self.num_classes, self.num_features)
        buckets = accumulate(moments, features, labels)
        if rows is not None and shift is not None:
            K = self.num_classes
            self.classifier[0] = 1
            self.classifier[1 : 1 + K] = shift
            self.classifier[1 + K :] = rows.reshape(-1)
        if fixed is not None:
            self.decided += fixed
        if kept is not None and decided is not None:
            self.hold(kept, buckets, decided)

    def check(
        self,
        features: Tensor | Array,
        labels: Tensor | Array | Sequence[int],
        weight: Tensor | Array | None = None,
        bias: Tensor | Array | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return the tensors that `update` would count, and raise what it would raise."""
        h, y, rows, shift = (tensor_of(x, self.device) for x in (features, labels, weight, bias))
        if self.ignore_index is not None and _as_many(h, y):
            counted = y != self.ignore_index
            h, y = h[counted], y[counted]
        check_batch(h, y, rows, shift, self.num_classes, self.num_features)
        if self._holds:
            self.check_room(h)
        return h, y.long(), rows, shift

    @torch.no_grad()
    def update_outside(self, features: Tensor | Array) -> None:
        """Count features (N, d) of an out-of-distribution set, used only by `nc5`.

        Raises:
            ValueError: if `features` are not (N, d) floats, or `nc5` was not selected.

        """
        if "outside" not in self._needs:
            raise ValueError("out-of-distribution features serve nc5, which was not selected")
        h = tensor_of(features, self.device)
        nothing = torch.zeros(getattr(h, "shape", (0,))[:1], dtype=torch.int64)
        check_batch(h, nothing, None, None, 1, self.num_features)
        self.make_states_writable()
        self._computed = None
        finite = finite_rows(h)
        self.outside[0] += finite.sum()
        self.outside[1] += (~finite).sum()
        self.outside[2:] += torch.where(finite[:, None], h, 0).sum(0, dtype=torch.float64)

    def fix_means(self, stats: ClassStatistics | None = None) -> None:
        """Fix the class means that `nc4_fixed` compares decisions with, from the next update on.

        Samples then need not be kept for the final means. A reset keeps the fixed means.

        Args:
            stats: the statistics that hold them; None for those counted so far over all ranks, which must
                then all call this.

        Raises:
            ValueError: if `nc4_fixed` was not selected, for means of another shape, and see `statistics`.

        """
        if "fixed" not in self._needs:
            raise ValueError("fixed means serve nc4_fixed, which was not selected")
        if stats is None:
            with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
                stats = self._statistics()
        shape = (self.num_classes, self.num_features)
        if stats.means.shape != shape:
            raise ValueError(f"means must be {shape}, got {tuple(stats.means.shape)}")
        self._fixed = FixedMeans(stats)
        self.mark_states("means", stats.means.cpu().numpy().tobytes())

    def statistics(self) -> ClassStatistics:
        """Return class statistics: of all ranks inside `compute` or `sync_context`, else of this one.

        With ``weighting="classes"`` they have no Sigma_W: one pass gives that of equal samples alone.

        Raises:
            ValueError: if fewer than two classes have samples, if labels were out of range, or if features
                were not finite and `nonfinite` is "raise".

        """
        stats = self._statistics()
        if stats.scatter is None or self.weighting == "classes":
            return replace(stats, scatter=None)
        return replace(stats, scatter=Scatter(stats.within, stats.counts.new_ones(()), stats.counts))

    def _statistics(self) -> ClassStatistics:
        """Statistics that share the memory of Sigma_W with the sums, valid until the next update."""
        K = self.num_classes
        moments = Moments.of(self.moments, K, self.num_features)
        skipped, misplaced = (int(n) for n in moments.counts[K:])
        if misplaced:
            raise ValueError(f"{misplaced} labels lie outside 0..{K - 1}")
        if skipped and self.nonfinite == "raise":
            raise ValueError(f"{skipped} samples have non-finite features; nonfinite='skip' leaves them out")
        if not bool((moments.squares.sum() + moments.scatter.sum()).isfinite()):
            raise ValueError("features are too large for float32 arithmetic; hand them over as float64")
        return ClassStatistics.from_moments(moments, self.centre, self.weighting).checked()

    def compute(self) -> dict[str, Tensor]:
        """Return the selected values as float64 scalars, except those that are `left_out`.

        Raises:
            ValueError: see `statistics`; also if the classifier is not finite, if `nc4` is requested and no
                sample came with a classifier, and if float32 or `buffer_dtype` cannot hold the features.

        """
        known = self._known(spreads=self._projects)
        given = known.given
        names = [name for name in self.metrics if TABLE[name].needs <= given]
        values = {name: TABLE[name].formula(known) for name in in_turn(names)}
        return {name: values[name] for name in names}

    def left_out(self) -> dict[str, str]:
        """Return the selected values that `compute` leaves out, over all ranks, and what each lacks."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            given = self._known(spreads=False).given
        lacks = {name: sorted(TABLE[name].needs - given) for name in self.metrics}
        return {name: LACKS[needs[0]] for name, needs in lacks.items() if needs}

    def class_values(self) -> dict[str, Tensor]:
        """Return values per class and pair of classes, over all ranks; see `classes.class_values`."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return class_values(self._known(spreads=self._holds and self.buffer_dtype is None))

    def _known(self, spreads: bool) -> Known:
        stats = self._statistics()
        skipped = Moments.of(self.moments, self.num_classes, self.num_features).counts[self.num_classes]
        return Known(
            stats=stats,
            classifier=self._weight(),
            majority=self.majority,
            class_counts=self.class_counts,
            decays=self.decays,
            outside=self._outside_mean(),
            skipped=skipped.clone(),
            buffers="samples" in self._needs,
            projects=self._projects,
            spreads=spreads,
            count=lambda: self.count_held(stats, spreads),
            count_directions=lambda: self.count_directions(stats),
            fixed=self.decided[:, None] if self._fixed is not None and bool(self.decided[0]) else None,
        )

    def _outside_mean(self) -> Tensor | None:
        if "outside" not in self._needs or not bool(self.outside[:2].sum()):
            return None
        finite, others = (int(n) for n in self.outside[:2])
        if others and self.nonfinite == "raise":
            raise ValueError(
                f"{others} out-of-distribution samples have non-finite features; "
                "nonfinite='skip' leaves them out"
            )
        return self.outside[2:] / finite if finite else None

    def _weight(self) -> Tensor | None:
        if "classifier" not in self._needs or not bool(self.classifier[0]):
            return None
        if not bool(self.classifier.isfinite().all()):
            raise ValueError("the classifier's weight or bias is not finite")
        return self.classifier[1 + self.num_classes :].view(self.num_classes, self.num_features)

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        parameters = list(signature(NeuralCollapse.__init__).parameters.values())[1:-1]
        values = {p.name: getattr(self, p.name) for p in parameters}
        if values["metrics"] == DEFAULT:
            values["metrics"] = None
        return ", ".join(f"{p.name}={values[p.name]!r}" for p in parameters if values[p.name] != p.default)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot the values, by default those of `compute`, as torchmetrics does; return figure and axes."""
        return self._plot(val, ax)


def _as_many(features: Any, labels: Any) -> bool:
    given = isinstance(features, Tensor) and isinstance(labels, Tensor) and labels.ndim == 1
    return given and features.shape[:1] == labels.shape


def _last_given(parts: Tensor) -> Tensor:
    """Return the last one given of the classifiers of all ranks, (R, 1 + K + K d)."""
    order = torch.arange(1, len(parts) + 1, device=parts.device)
    return parts[((parts[:, 0] > 0) * order).argmax()]
