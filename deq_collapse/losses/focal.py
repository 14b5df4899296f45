"""Focal loss: samples that are already easy count less (Lin et al., "Focal Loss for Dense Object Detection",
ICCV 2017).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.losses.criterion import Criterion
from deq_collapse.losses.weights import ClassWeights


class Focal(Criterion):
    """Mean of ``-(1 - p_y)^gamma log p_y`` with p the softmax of the logits; Lin et al. 2017, eq. 4.

    The paper uses one sigmoid p per class; this is the softmax form, as in LDAM's comparisons. With gamma 0
    it is cross entropy.

    Args:
        class_counts: training images per class, (K,), all above 0.
        gamma: at least 0; the larger gamma, the less a sample counts whose class is already likely.
        weights: class weights; ``None`` for equal ones.

    Raises:
        UserError: for an argument out of its range.
    """

    def __init__(
        self, class_counts: Sequence[int], gamma: float = 2.0, weights: ClassWeights | None = None
    ) -> None:
        super().__init__(class_counts, weights)
        if not gamma >= 0:
            raise UserError(f"gamma of the focal loss is {gamma}, but it is at least 0.")
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K), labels (N,) or probabilities (N, K); a scalar."""
        return self.mean(self._losses, logits, labels)

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        surprise = F.cross_entropy(logits, labels, reduction="none")
        # 1 - p, kept away from 0, where the gradient is not finite for gamma below 1.
        rest = -torch.expm1(-surprise)
        return rest.clamp(min=torch.finfo(rest.dtype).tiny) ** self.gamma * surprise
