"""Residual layers with batch normalisation, as first trained by Jacobian-free backpropagation (Fung et al.,
"JFB: Jacobian-Free Backpropagation for Implicit Networks", AAAI 2022).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models.cells.base import Cell, Shape, check_dims, check_width

SLOPE = 0.1
"""Of the leaky ReLU below 0, as published."""


class BatchNormCell(Cell):
    """``f(z, h0) = gamma r_L(... r_1(z + h0))`` with ``r(w) = n(w + s(B s(A w)))``: affine 3x3 convolutions A
    and B, batch norms n without affine map, leaky ReLU s of slope 0.1 below 0.

    In training n normalises by the statistics of the batch: f is one map of all its states together, and what
    is solved for one sample depends on the others. A solve is still measured sample by sample. Every
    evaluation moves the running statistics, those of a solver too, as the authors' does. Where the geometry
    is measured n has the running statistics, and each sample stands on its own. Ranks solve apart, with
    different numbers of evaluations, so statistics over ranks (``trainer.sync_batchnorm``) are refused.

    Guaranteed: in training f has a fixed point for every batch, since the last n maps all states into a ball
    (Brouwer). Nothing is where the geometry is measured, and ``lipschitz_bound`` is ``None``. The authors
    also scale A and B down after a step in which f stretched random steps by more than gamma; their weights
    stay at half of that, and here nothing does.

    A stack of such blocks starts from 0, as the published explicit network does.

    Args:
        shape: channels, height and width of ``z`` and ``h0``.
        layers: L, at least 1.
        gamma: factor of the last norm's output, above 0.
        inner_width: channels between A and B; ``None`` for as many as ``z`` has.

    Raises:
        UserError: for an argument out of range, and for an H0 of vectors.
    """

    def __init__(
        self, shape: Shape, layers: int = 2, gamma: float = 0.5, inner_width: int | None = None
    ) -> None:
        super().__init__()
        check_dims("BatchNormCell", shape, 3)
        if layers < 1:
            raise UserError(f"layers is {layers}, but a cell has at least 1.")
        if not 0 < gamma < math.inf:
            raise UserError(f"gamma is {gamma}, but it is a number above 0.")
        self.gamma, width = gamma, shape[0]
        inner = check_width(inner_width, width)
        self.layers = nn.ModuleList(_Layer(width, inner) for _ in range(layers))

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        """One evaluation; (N, C, H, W) in and out."""
        w = z + h0
        for layer in self.layers:
            w = layer(w)
        return self.gamma * w

    def lift(self, h0: Tensor) -> Tensor:
        """Zeros of the shape of ``h0``."""
        return torch.zeros_like(h0)


class _Layer(nn.Module):
    """``n(w + s(B s(A w)))``."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.A = nn.Conv2d(width, inner, 3, padding=1)
        self.B = nn.Conv2d(inner, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width, affine=False)

    def forward(self, w: Tensor) -> Tensor:
        step = F.leaky_relu(self.B(F.leaky_relu(self.A(w), SLOPE)), SLOPE)
        normed: Tensor = self.norm(w + step)
        return normed
