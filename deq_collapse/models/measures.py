"""Everything measured on one split in eval mode: neural collapse, accuracy as the field reports it, loss,
solver.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from deq_collapse.metrics import NeuralCollapse
from deq_collapse.models.equilibrium import Solve


class SplitMeasures(nn.Module):
    """Accumulates one split over batches and ranks.

    Args:
        num_classes: K.
        num_features: d.
        class_counts: training images per class, (K,): they set the SELI target, also of a test split.
        majority: majority classes of a step imbalance, else ``None``.
        metrics: names of the collapse metrics wanted; ``None`` for all that are cheap.
    """

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        class_counts: Sequence[int],
        majority: Sequence[int] | None,
        metrics: Sequence[str] | None,
    ) -> None:
        super().__init__()
        self.majority = majority
        self.collapse = NeuralCollapse(num_classes, num_features, metrics, majority, class_counts)
        self.confusion = MulticlassConfusionMatrix(num_classes)
        self.loss = MeanMetric(nan_strategy=math.inf)  # a loss that is not a number is to be seen
        self.residual = MaxMetric(nan_strategy=math.inf)
        self.evaluations = MeanMetric(nan_strategy=math.inf)
        self.solved = False

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
        weight, bias = classifier.get_parameter("weight"), getattr(classifier, "bias", None)
        self.collapse.update(h, labels, weight, bias)
        self.confusion.update(logits, labels)
        self.loss.update(loss, len(labels))
        if solve is not None:
            self.solved = True
            self.residual.update(solve.residual)
            self.evaluations.update(float(solve.evaluations), len(labels))

    def compute(self) -> dict[str, Tensor]:
        """The values over all ranks, as scalars by name."""
        values = self.collapse.compute() | accuracies(self.confusion.compute(), self.majority)
        values["loss"] = self.loss.compute()
        if self.solved:
            values["residual"] = self.residual.compute()
            values["evaluations"] = self.evaluations.compute()
        return values

    def reset(self) -> None:
        """Forgets everything counted."""
        for metric in (self.collapse, self.confusion, self.loss, self.residual, self.evaluations):
            metric.reset()


def accuracies(confusion: Tensor, majority: Sequence[int] | None) -> dict[str, Tensor]:
    """Accuracy as the imbalance literature reports it.

    Args:
        confusion: counts of (true class, predicted class), (K, K).
        majority: majority classes, or ``None``.

    Returns:
        ``error`` and ``accuracy`` over samples, ``balanced_accuracy`` over the classes present, and with
        ``majority`` the accuracy over the samples of either group; each in [0, 1], nan for a group without
        samples.
    """
    confusion = confusion.double()
    right, seen = confusion.diagonal(), confusion.sum(1)
    recall = (right / seen)[seen > 0]
    values = {
        "accuracy": right.sum() / seen.sum(),
        "error": (seen.sum() - right.sum()) / seen.sum(),
        "balanced_accuracy": recall.mean(),
    }
    if majority is not None:
        group = torch.zeros(len(seen), dtype=torch.bool, device=seen.device)
        group[list(majority)] = True
        values["accuracy_majority"] = right[group].sum() / seen[group].sum()
        values["accuracy_minority"] = right[~group].sum() / seen[~group].sum()
    return values
