"""All measures of one split in eval mode: neural collapse, accuracy as the field reports it, loss, solver."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torchmetrics import MaxMetric, MeanMetric, Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from deq_collapse.errors import Diverged, UserError
from deq_collapse.metrics import NeuralCollapse
from deq_collapse.metrics.functional import frequency_groups
from deq_collapse.metrics.functional.imbalance import FEW, MANY
from deq_collapse.models.classifiers import linear_map
from deq_collapse.models.solution import Solve


class SplitMeasures(nn.Module):
    """Accumulates one split over batches and ranks.

    For an equilibrium also ``residual``, the largest over samples, ``evaluations``, the mean over samples,
    and ``unconverged``, the share of samples that missed ``eval_tol``.

    Args:
        num_classes: K.
        num_features: d.
        class_counts: training images per class, (K,), which set the targets, also those of a test split.
        majority: majority classes of a step imbalance, else ``None``.
        metrics: names of the collapse metrics to compute; ``None`` for all cheap ones.
        groups: classes by the name of their group, for the accuracy of each group.
        decays: of the classifier and of the features of one sample in the loss, which set the GOF and ReLU
            targets; ``None`` for their limit as decays vanish.
    """

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        class_counts: Sequence[int],
        majority: Sequence[int] | None,
        metrics: Sequence[str] | None,
        groups: Mapping[str, Sequence[int]],
        decays: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.collapse = NeuralCollapse(
            num_classes, num_features, metrics, majority, class_counts, decays=decays or (0.0, 0.0)
        )
        self.confusion = MulticlassConfusionMatrix(num_classes)
        self.loss = _Mean()
        self.residual = MaxMetric(nan_strategy=math.inf)
        self.evaluations = MeanMetric(nan_strategy=math.inf)
        self.unconverged = MeanMetric()
        self.solved = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SplitMeasures":
        """Follows the network to a device, but not to a precision: in bfloat16 a count stops at 256."""
        moved: SplitMeasures = super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), recurse)  # type: ignore[no-untyped-call]
        return moved

    def update(
        self,
        h: Tensor,
        logits: Tensor,
        labels: Tensor,
        loss: Tensor,
        classifier: nn.Module,
        solve: Solve | None,
    ) -> None:
        """Counts a batch of features (N, d), logits (N, K) and labels (N,), with its mean loss."""
        self.collapse.update(h, labels, *linear_map(classifier))
        self.confusion.update(logits, labels)
        self.loss.update(loss, len(labels))
        if solve is not None:
            self.solved = True
            self.residual.update(solve.residual)
            self.evaluations.update(float(solve.evaluations), len(labels))
            self.unconverged.update(solve.missed.float())

    def comparable(self) -> bool:
        """Whether samples of at least two classes were counted, over all ranks: collapse compares classes."""
        return bool((self.confusion.compute().sum(1) > 0).sum() > 1)

    def compute(self) -> dict[str, Tensor]:
        """The values over all ranks, as scalars by name."""
        values = self.collapse.compute() | accuracies(self.confusion.compute(), self.groups)
        values["loss"] = self.loss.compute()
        if self.solved:
            values["residual"] = self.residual.compute()
            values["evaluations"] = self.evaluations.compute()
            values["unconverged"] = self.unconverged.compute()
        return values

    def class_means(self) -> Tensor:
        """Raw class means over all ranks, (K, d)."""
        with self.collapse.sync_context(dist_sync_fn=self.collapse.dist_sync_fn):
            return self.collapse.statistics().means.clone()

    def names(self, solved: bool) -> list[str]:
        """The names of the values of a split with samples of every class, without computing any.

        Args:
            solved: whether an equilibrium computes the features.
        """
        K, d = self.collapse.num_classes, self.collapse.num_features
        collapse = deepcopy(self.collapse)
        collapse.reset()
        collapse.update(torch.zeros(K, d), torch.arange(K), torch.zeros(K, d))
        absent = collapse.left_out()
        counted = accuracies(torch.eye(K), self.groups)
        solves = ["residual", "evaluations", "unconverged"] if solved else []
        return [*(name for name in collapse.metrics if name not in absent), *counted, "loss", *solves]

    def reset(self) -> None:
        """Forgets everything counted."""
        solves = (self.residual, self.evaluations, self.unconverged)
        for metric in (self.collapse, self.confusion, self.loss, *solves):
            metric.reset()


def precise(values: Tensor) -> Tensor:
    """Converts to float32 or better: measures of a half-precision network are not rounded to it again."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextmanager
def divergence_told(split: str, step: int) -> Iterator[None]:
    """Turns the metric's error about non-finite features into `Diverged`.

    Raises:
        Diverged: if there are any.
    """
    try:
        yield
    except ValueError as error:
        found = str(error).partition(";")[0]
        raise Diverged(
            f"the run diverged: after step {step}, on the {split} split, {found}; a lower learning rate may"
            " help."
        ) from error


class _Mean(Metric):
    """A weighted mean in float64, in which the order of batches does not show; torchmetrics' own casts to
    float32 after a move to a device. NaN must not go unnoticed: it counts as infinite.
    """

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: int) -> None:
        """Counts a scalar ``weight`` times."""
        self.total += weight * value.detach().double().nan_to_num(math.inf, math.inf, -math.inf)
        self.weight += weight

    def compute(self) -> Tensor:
        """The mean, a scalar."""
        return self.total / self.weight


def accuracies(confusion: Tensor, groups: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Accuracy as the imbalance literature reports it.

    Args:
        confusion: counts of (true class, predicted class), (K, K).
        groups: classes by the name of their group; see `class_groups`.

    Returns:
        ``error`` and ``accuracy`` over samples, ``balanced_accuracy`` over the classes present, and
        ``accuracy_<group>`` over the samples of each group; each in [0, 1], nan for a group without samples.
    """
    confusion = confusion.double()
    right, seen = confusion.diagonal(), confusion.sum(1)
    recall = (right / seen)[seen > 0]
    values = {
        "accuracy": right.sum() / seen.sum(),
        "error": (seen.sum() - right.sum()) / seen.sum(),
        "balanced_accuracy": recall.mean(),
    }
    for name, classes in groups.items():
        members = list(classes)
        values[f"accuracy_{name}"] = right[members].sum() / seen[members].sum()
    return values


def class_groups(
    class_counts: Sequence[int], majority: Sequence[int] | None, many: int = MANY, few: int = FEW
) -> dict[str, tuple[int, ...]]:
    """The groups of classes for which accuracies are reported.

    Under step imbalance ``majority`` and ``minority``; otherwise those of ``many``, ``medium`` and ``few``
    that have classes, if there are at least two (Liu et al., "Large-Scale Long-Tailed Recognition in an Open
    World", 2019).

    Args:
        class_counts: training images per class, (K,).
        majority: majority classes, or ``None``.
        many: classes with more training images are ``many``.
        few: classes with fewer are ``few``.

    Raises:
        UserError: for thresholds in the wrong order.
    """
    if not 0 <= few <= many:
        raise UserError(f"the thresholds are many={many} and few={few}, but 0 <= few <= many.")
    if majority is not None:
        rest = tuple(c for c in range(len(class_counts)) if c not in majority)
        return {"majority": tuple(majority), "minority": rest}
    split = frequency_groups(torch.tensor(class_counts), many, few)
    groups = {name: tuple(members.nonzero().flatten().tolist()) for name, members in split.items()}
    groups = {name: classes for name, classes in groups.items() if classes}
    return groups if len(groups) > 1 else {}
