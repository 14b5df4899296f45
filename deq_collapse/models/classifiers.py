"""Classifiers besides ``torch.nn.Linear``: a cosine classifier and a fixed simplex ETF.

A classifier takes the feature width d and the number of classes K, and has ``weight`` (K, d) and optionally
``bias`` (K,): the linear map that it applies to features h, from which the metrics derive its decisions. If
it applies the map to features of length 1, it sets ``normalises``; the network then normalises them, so that
the measured h is what enters the linear map.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.losses.ldam import SCALE


class CosineClassifier(nn.Module):
    """Logits ``s cos(v_c, h)``, no bias; the classifier of LDAM (Cao et al. 2019) and of face recognition.

    Its linear map has rows ``w_c = s v_c / ||v_c||`` and is applied to ``h / ||h||``: these weights and
    features are measured. Hence ``nc2_norm_weights`` is 0 by construction.

    Args:
        num_features: d.
        num_classes: K.
        scale: s, above 0; the cross entropy of plain cosines (s = 1) cannot approach 0.
        learn_scale: also train s, starting from that value.

    Raises:
        UserError: for a scale that is not above 0.
    """

    normalises = True

    def __init__(
        self, num_features: int, num_classes: int, scale: float = SCALE, learn_scale: bool = False
    ) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise UserError(f"the scale of the cosine classifier is {scale}, but it is above 0.")
        self.scale = nn.Parameter(torch.tensor(float(scale)), requires_grad=learn_scale)
        # Of length 1: the gradient of a row is inversely proportional to its length, so the length sets the
        # step.
        self.directions = nn.Parameter(F.normalize(torch.randn(num_classes, num_features)))

    @property
    def weight(self) -> Tensor:
        """Rows of length s, (K, d)."""
        return self.scale * F.normalize(self.directions)

    def forward(self, h: Tensor) -> Tensor:
        """Features (N, d), of any length, to logits (N, K)."""
        return F.linear(F.normalize(h), self.weight)

    def extra_repr(self) -> str:
        """Shape, and scale."""
        classes, features = self.directions.shape
        return f"{features}, {classes}, scale={self.scale.item():g}"


class FixedETF(nn.Module):
    """A fixed simplex equiangular tight frame, without bias: rows of length s whose cosines are -1/(K-1)
    (Yang et al., "Inducing Neural Collapse in Imbalanced Learning", NeurIPS 2022).

    ``W = s sqrt(K / (K-1)) H Q^T`` with H (K, K-1) orthonormal and orthogonal to the vector of ones, and Q
    (d, K-1) orthonormal, drawn at random: ``W W^T = s^2 (K I - 11^T) / (K-1)``.

    Args:
        num_features: d, at least K - 1.
        num_classes: K.
        scale: s, the paper's sqrt(E_W), above 0.
        normalise: apply it to ``h / ||h||``, as the dot-regression loss requires.
        seed: of Q.

    Raises:
        UserError: for more than d + 1 classes, or a scale that is not above 0.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        scale: float = 1.0,
        normalise: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_classes > num_features + 1:
            raise UserError(
                f"a simplex ETF of {num_classes} classes needs at least {num_classes - 1} features, but there"
                f" are {num_features}."
            )
        if not 0 < scale < math.inf:
            raise UserError(f"the scale of the fixed ETF is {scale}, but it is above 0.")
        self.normalises = normalise
        generator = torch.Generator().manual_seed(seed)
        gauss = torch.randn(num_features, num_classes - 1, generator=generator, dtype=torch.float64)
        Q = torch.linalg.qr(gauss).Q
        ones = torch.ones(num_classes, 1, dtype=torch.float64)
        H = torch.linalg.qr(torch.cat([ones, torch.eye(num_classes).double()[:, 1:]], 1)).Q[:, 1:]
        W = scale * math.sqrt(num_classes / (num_classes - 1)) * H @ Q.T
        # A parameter, not a buffer, for code that looks for a classifier's weight among the parameters.
        self.weight = nn.Parameter(W.float(), requires_grad=False)

    def forward(self, h: Tensor) -> Tensor:
        """Features (N, d) to logits (N, K)."""
        return F.linear(F.normalize(h) if self.normalises else h, self.weight)

    def extra_repr(self) -> str:
        """Shape, and whether features are normalised."""
        classes, features = self.weight.shape
        return f"{features}, {classes}, normalise={self.normalises}"


def linear_map(classifier: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight (K, d) and bias (K,), if any, of the linear map that a classifier applies to features h.

    Raises:
        UserError: for a classifier without ``weight``.
    """
    weight, bias = getattr(classifier, "weight", None), getattr(classifier, "bias", None)
    if not isinstance(weight, Tensor):
        raise UserError(
            f"{type(classifier).__name__} is no classifier: it has no weight (K, d) to measure collapse on."
        )
    return weight.detach(), None if bias is None else bias.detach()
