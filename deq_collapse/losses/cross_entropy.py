"""Cross entropy, with label smoothing and class weights."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.losses.criterion import Criterion
from deq_collapse.losses.weights import ClassWeights


class CrossEntropy(Criterion):
    """Mean cross entropy ``-log softmax(z)_y``; without weights it does not depend on the counts.

    With weights it is the class-balanced softmax loss of Cui et al. 2019; with weights that start late it is
    the "CE-DRW" of Cao et al. 2019.

    Args:
        class_counts: training images per class, (K,), all above 0.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].
        weights: class weights; ``None`` for equal ones.

    Raises:
        UserError: for an argument out of its range.
    """

    def __init__(
        self,
        class_counts: Sequence[int],
        label_smoothing: float = 0.0,
        weights: ClassWeights | None = None,
    ) -> None:
        super().__init__(class_counts, weights)
        if not 0 <= label_smoothing <= 1:
            raise UserError(f"label_smoothing is {label_smoothing}, but it is a share in [0, 1].")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K), labels (N,) or probabilities (N, K); a scalar."""
        return cross_entropy(logits, labels, self.class_weights, self.label_smoothing)


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """torch's mean cross entropy with one difference: with weights, probabilities (N, K) are also averaged by
    weight, so that a one-hot label equals the label. (torch divides by N there.)
    """
    if weights is None or labels.dim() == 1:
        return F.cross_entropy(logits, labels, weights, label_smoothing=label_smoothing)
    total = F.cross_entropy(logits, labels, weights, reduction="sum", label_smoothing=label_smoothing)
    return total / (labels * weights).sum()  # autocast would round a product of matrices
