"""Squared error on one-hot targets (Hui & Belkin, "Evaluation of Neural Architectures Trained with Square
Loss vs Cross-Entropy in Classification Tasks", ICLR 2021).
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.losses.criterion import Criterion


class SquaredError(Criterion):
    """Mean of ``(k (z_y - M)^2 + sum_{c != y} z_c^2) / K``; Hui & Belkin 2021.

    ``k = M = 1`` is the plain mean squared error, suitable for up to about 40 classes; for more, the paper
    rescales, on ImageNet with k = 15, M = 30.

    Args:
        class_counts: training images per class, (K,), all above 0; the loss does not depend on them.
        k: weight of the true class's term, above 0.
        M: target of the true class's logit, above 0.

    Raises:
        UserError: for an argument out of its range.
    """

    def __init__(self, class_counts: Sequence[int], k: float = 1.0, M: float = 1.0) -> None:
        super().__init__(class_counts)
        if not (k > 0 and M > 0):
            raise UserError(f"k and M of the squared error are {k} and {M}, but both are above 0.")
        self.k, self.M = k, M

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K), labels (N,) or probabilities (N, K); a scalar."""
        return self.mean(self._losses, logits, labels)

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        true = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        squares = (logits - self.M * true).square()
        return (squares * (1 + (self.k - 1) * true)).mean(1)
