"""Logits shifted by class priors: balanced softmax (Ren 2020) and logit adjustment (Menon 2021)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deq_collapse.errors import UserError
from deq_collapse.losses.criterion import Criterion
from deq_collapse.losses.cross_entropy import cross_entropy


class BalancedSoftmax(Criterion):
    """Mean cross entropy of ``z_c + log n_c`` (Ren et al., "Balanced Meta-Softmax", NeurIPS 2020).

    With equal counts it is cross entropy. The attraction-repulsion-balanced loss (ARB-Loss, Xie et al.,
    "Neural Collapse Inspired Attraction-Repulsion-Balanced Loss", 2023),
    ``-log(exp z_y / sum_c (n_c / n_y) exp z_c)``, is the same function if its counts are those of the data
    set: divide numerator and denominator by n_y. It differs only if it uses the counts of each batch.

    Args:
        class_counts: training images per class, (K,), all above 0.
    """

    log_counts: Tensor

    def __init__(self, class_counts: Sequence[int]) -> None:
        super().__init__(class_counts)
        self.register_buffer("log_counts", torch.tensor(class_counts, dtype=torch.float32).log())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K), labels (N,) or probabilities (N, K); a scalar."""
        return cross_entropy(logits + self.log_counts, labels)


class LogitAdjustment(Criterion):
    """Mean cross entropy of ``z_c + tau log(n_c / N)`` (Menon et al., "Long-tail learning via logit
    adjustment", ICLR 2021, eq. 10).

    With tau 0 it is cross entropy, with tau 1 it is balanced softmax.

    Args:
        class_counts: training images per class, (K,), all above 0.
        tau: at least 0.

    Raises:
        UserError: for a negative tau.
    """

    shift: Tensor

    def __init__(self, class_counts: Sequence[int], tau: float = 1.0) -> None:
        super().__init__(class_counts)
        self.register_buffer("shift", prior_shift(class_counts, tau))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K), labels (N,) or probabilities (N, K); a scalar."""
        return cross_entropy(logits + self.shift, labels)


def prior_shift(class_counts: Sequence[int], tau: float) -> Tensor:
    """``tau log(n_c / N)``, (K,).

    Raises:
        UserError: for a tau that is negative or not finite.
    """
    if not 0 <= tau < math.inf:
        raise UserError(f"tau of the logit adjustment is {tau}, but it is at least 0.")
    counts = torch.tensor(class_counts, dtype=torch.float64)
    return (tau * (counts / counts.sum()).log()).float()
