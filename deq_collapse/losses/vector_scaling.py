"""Vector-scaling loss: logits scaled and shifted by class (Kini et al., "Label-Imbalanced and Group-Sensitive
Classification under Overparameterization", NeurIPS 2021).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deq_collapse.errors import UserError
from deq_collapse.losses.criterion import Criterion
from deq_collapse.losses.cross_entropy import cross_entropy
from deq_collapse.losses.logit_adjustment import prior_shift
from deq_collapse.losses.weights import ClassWeights


class VectorScaling(Criterion):
    """Mean cross entropy of ``Delta_c z_c + iota_c``, ``Delta_c = (n_c / n_max)^gamma``,
    ``iota_c = tau log(n_c / N)``; Kini et al. 2021.

    With gamma 0 it is logit adjustment; with tau 0 it has the class-dependent temperatures of Ye et al. 2020.
    The defaults are the paper's for CIFAR-10 with a long tail of ratio 100.

    Args:
        class_counts: training images per class, (K,), all above 0.
        gamma: at least 0.
        tau: at least 0.
        weights: class weights, the paper's omega; ``None`` for equal ones.

    Raises:
        UserError: for an argument out of its range.
    """

    scales: Tensor
    shift: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        gamma: float = 0.15,
        tau: float = 1.25,
        weights: ClassWeights | None = None,
    ) -> None:
        super().__init__(class_counts, weights)
        if not 0 <= gamma < math.inf:
            raise UserError(f"gamma of the vector-scaling loss is {gamma}, but it is at least 0.")
        counts = torch.tensor(class_counts, dtype=torch.float64)
        self.register_buffer("scales", ((counts / counts.max()) ** gamma).float())
        self.register_buffer("shift", prior_shift(class_counts, tau))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K), labels (N,) or probabilities (N, K); a scalar."""
        return cross_entropy(self.scales * logits + self.shift, labels, self.class_weights)
