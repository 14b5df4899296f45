"""Label-distribution-aware margins (Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware
Margin Loss", NeurIPS 2019).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.losses.criterion import Criterion, gives_cosines
from deq_collapse.losses.weights import ClassWeights

SCALE = 30.0
"""s, as in the paper's code; a cosine classifier also starts there."""


class LDAM(Criterion):
    """Mean cross entropy of ``s (cos_c - m_y 1{c = y})``, margins ``m_c = C n_c^(-1/4)``; Cao et al. 2019.

    LDAM-DRW is this loss with weights that start after 0.8 of the epochs.

    C is such that the largest margin is ``max_margin``. A margin is meaningful only for bounded logits: cos_c
    is the cosine of h and the classifier's row w_c. The criterion receives the logits ``s cos_c`` of a
    :class:`~deq_collapse.models.CosineClassifier` of the same scale, so that their softmax is the model's
    probability; the paper's code multiplies by s inside the loss, which is the same function.

    Args:
        class_counts: training images per class, (K,), all above 0.
        max_margin: the margin of the rarest class, at least 0; with 0 it is cross entropy.
        scale: s, above 0.
        weights: class weights; ``None`` for equal ones.

    Raises:
        UserError: for an argument out of its range.
    """

    margins: Tensor

    def __init__(
        self,
        class_counts: Sequence[int],
        max_margin: float = 0.5,
        scale: float = SCALE,
        weights: ClassWeights | None = None,
    ) -> None:
        super().__init__(class_counts, weights)
        if not (max_margin >= 0 and scale > 0):
            raise UserError(
                f"LDAM's max_margin is {max_margin} and its scale {scale}, but a margin is at least 0 and a"
                " scale above 0."
            )
        self.scale = scale
        margins = torch.tensor(class_counts, dtype=torch.float64) ** -0.25
        self.register_buffer("margins", (max_margin * margins / margins.max()).float())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K) = s cos, labels (N,) or probabilities (N, K); a scalar."""
        return self.mean(self._losses, logits, labels)

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        margins = self.scale * self.margins[labels]
        true = F.one_hot(labels, logits.shape[1])
        return F.cross_entropy(logits - margins[:, None] * true, labels, reduction="none")

    def check(self, classifier: nn.Module) -> None:
        """See the base class; the logits must be s times cosines, with s fixed."""
        trained = any(p.requires_grad and p.dim() == 0 for p in classifier.parameters())
        if trained or not gives_cosines(classifier, self.scale):
            raise UserError(
                f"LDAM needs logits that are {self.scale:g} times a cosine: model.classifier"
                f" deq_collapse.models.CosineClassifier with the scale {self.scale:g}, not learned, instead"
                f" of {type(classifier).__name__}."
            )
