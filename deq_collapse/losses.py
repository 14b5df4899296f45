"""Criteria: a logits-and-labels loss that is told the class counts of the training split.

A criterion of your own is a class whose first argument is the tuple of class counts; name it by
``class_path``.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CrossEntropy(nn.CrossEntropyLoss):
    """Mean cross entropy; the counts do not change it.

    Args:
        class_counts: training images per class, (K,).
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].
    """

    def __init__(self, class_counts: Sequence[int], label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)


class BalancedSoftmax(nn.Module):
    """Mean cross entropy of ``logits + log n_c`` (Ren et al., "Balanced Meta-Softmax", NeurIPS 2020).

    On equal counts it equals cross entropy.

    Args:
        class_counts: training images per class, (K,), all above 0.
    """

    def __init__(self, class_counts: Sequence[int]) -> None:
        super().__init__()
        self.log_counts: Tensor
        self.register_buffer("log_counts", torch.tensor(class_counts, dtype=torch.float32).log())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K), labels (N,); a scalar."""
        return F.cross_entropy(logits + self.log_counts, labels)


CriterionFactory = Callable[[tuple[int, ...]], nn.Module]
"""Makes a criterion for class counts; in a config, its ``class_path`` and other arguments."""
