"""Class weights by the effective number of samples, optionally from a later epoch on (Cui et al.,
"Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019; deferred: Cao et al., "LDAM", NeurIPS
2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deq_collapse.errors import UserError


@dataclass(frozen=True)
class ClassWeights:
    """The weights of classes in a criterion, and when they take effect.

    Args:
        beta: of the effective number, in [0, 1]; see :func:`effective_number_weights`.
        after: share of the training epochs, in [0, 1), with equal weights before these are switched on.
            Deferred re-weighting (DRW) uses 0.8: epoch 160 of 200. They are on in the last of several
            epochs, however few.
    """

    beta: float = 0.9999
    after: float = 0.0

    def of(self, class_counts: Sequence[int]) -> Tensor:
        """The weights of classes with these counts, (K,), with mean 1.

        Raises:
            UserError: for a beta or a share outside its range.
        """
        if not 0 <= self.after < 1:
            raise UserError(
                f"class weights start after {self.after} of the epochs, but a share is in [0, 1)."
            )
        return effective_number_weights(class_counts, self.beta)

    def on(self, epoch: int, epochs: int) -> bool:
        """Whether they are switched on in an epoch, counted from 0, out of all epochs.

        Raises:
            UserError: for deferred weights of a run whose number of epochs is not known.
        """
        if self.after and epochs < 1:
            raise UserError(
                "class weights that start after a share of the epochs need a run whose length is known"
                " beforehand: trainer.max_epochs or max_steps, and neither max_time nor early stopping."
            )
        return epoch >= min(round(self.after * epochs), max(epochs - 1, 1))


def effective_number_weights(class_counts: Sequence[int], beta: float) -> Tensor:
    """Weights ``(1 - beta) / (1 - beta^n_c)``, scaled to sum to K; Cui et al. 2019.

    ``(1 - beta^n) / (1 - beta)`` is the expected volume that n samples cover if each of them leaves a share
    beta of the volume uncovered. 0 weights all classes equally, 1 by the inverse of their counts.

    Args:
        class_counts: training images per class, (K,), all above 0.
        beta: in [0, 1]; the paper uses 0.9, 0.99, 0.999 and 0.9999.

    Returns:
        (K,), float32.

    Raises:
        UserError: for a beta outside its range.
    """
    if not 0 <= beta <= 1:
        raise UserError(f"beta of the class weights is {beta}, but it is in [0, 1].")
    counts = torch.tensor(class_counts, dtype=torch.float64)
    # Not 1 - beta^n, which loses digits if beta is near 1.
    volumes = counts if beta == 1 else -torch.expm1(counts * torch.tensor(beta, dtype=torch.float64).log())
    inverse = 1 / volumes
    return (inverse * len(counts) / inverse.sum()).float()
