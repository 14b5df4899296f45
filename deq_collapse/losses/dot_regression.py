"""Dot-regression loss on a fixed simplex ETF (Yang et al., "Inducing Neural Collapse in Imbalanced Learning",
NeurIPS 2022).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.losses.criterion import Criterion, gives_cosines


class DotRegression(Criterion):
    """Mean of ``(w_y h - E)^2 / (2 E)`` with ``E = sqrt(E_W E_H)``; Yang et al. 2022, the DR loss.

    E_W and E_H are the squared lengths of the classifier's rows and of the features. Features here have
    length 1, those of a :class:`~deq_collapse.models.FixedETF` that normalises, so E is that classifier's
    scale, and the loss is 0 if every feature points along its class's row. Features are pulled towards that
    row but not pushed away from the others.

    Args:
        class_counts: training images per class, (K,), all above 0; the loss does not depend on them.
        scale: E, above 0.

    Raises:
        UserError: for a scale that is not above 0.
    """

    def __init__(self, class_counts: Sequence[int], scale: float = 1.0) -> None:
        super().__init__(class_counts)
        if not scale > 0:
            raise UserError(f"the scale of the dot-regression loss is {scale}, but it is above 0.")
        self.scale = scale

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, K) = W h, labels (N,) or probabilities (N, K); a scalar."""
        return self.mean(self._losses, logits, labels)

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        own = logits.gather(1, labels[:, None]).squeeze(1)
        return (own - self.scale).square() / (2 * self.scale)

    def check(self, classifier: nn.Module) -> None:
        """See the base class; the classifier must be a fixed simplex ETF on features of length 1."""
        trained = any(p.requires_grad for p in classifier.parameters())
        if trained or not gives_cosines(classifier, self.scale) or not _is_etf(classifier):
            raise UserError(
                "the dot-regression loss needs a fixed simplex ETF on features of length 1: model.classifier"
                f" deq_collapse.models.FixedETF with normalise and the scale {self.scale:g}, instead of"
                f" {type(classifier).__name__}."
            )


def _is_etf(classifier: nn.Module) -> bool:
    weight = classifier.weight
    assert isinstance(weight, Tensor)
    rows = F.normalize(weight)
    K = len(rows)
    ideal = (torch.eye(K, device=rows.device) * K - 1) / (K - 1)
    return torch.allclose(rows @ rows.T, ideal, atol=1e-4)
