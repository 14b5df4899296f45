"""The contractive convolution cell, and the convolution of bounded operator norm that it is made of."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models.cells.base import Cell, Shape


class BoundedConv2d(nn.Conv2d):
    """A 3x3 convolution whose operator norm on maps of one size is scaled down to at most ``bound``.

    The norm is that of the linear map with its zero padding, found by power iteration with the convolution
    and its transpose (Miyato 2018 on the operator itself, not on the reshaped kernel: spectral normalisation
    of the kernel to 0.9 left operator norms of 2.6). The gradient passes through the scaling. Power iteration
    approaches the norm from below and lags behind weights that move: one step per training pass left true
    norms up to 12% above the bound amid a run on `digits`.

    Args:
        shape: channels, height and width of the map.
        bound: largest operator norm allowed, above 0.
        out_channels: of the map that comes out; as many as go in where ``None``.
    """

    def __init__(self, shape: Shape, bound: float, out_channels: int | None = None) -> None:
        channels, height, width = shape
        super().__init__(channels, out_channels or channels, 3, padding=1, bias=False)
        self.bound = bound
        self.singular_vector: Tensor
        self.register_buffer("singular_vector", _unit(torch.ones(1, channels, height, width)))
        self.power_iteration(50)

    @torch.no_grad()
    def power_iteration(self, steps: int = 1) -> None:
        """Moves the stored right singular vector ``steps`` steps towards the leading one."""
        v = self.singular_vector
        for _ in range(steps):
            u = F.conv2d(v, self.weight, padding=1)
            v = _unit(F.conv_transpose2d(u, self.weight, padding=1))
        # Weights of zero lead to zero, and from there no later step would find its way out.
        self.singular_vector.copy_(torch.where(v.any(), v, self.singular_vector))

    def operator_norm(self) -> Tensor:
        """The estimate ``||W v||`` of the operator norm of the unscaled weight; a scalar that carries a
        gradient.
        """
        return _norm(F.conv2d(self.singular_vector, self.weight, padding=1))

    def bounded_weight(self) -> Tensor:
        """The weight scaled so that the estimated operator norm is at most ``bound``."""
        return self.weight * (self.bound / self.operator_norm().clamp_min(self.bound))


def _unit(x: Tensor) -> Tensor:
    return x / _norm(x).clamp_min(torch.finfo(x.dtype).tiny)


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x)
    return norm


class ConvCell(Cell):
    """``f(z, h0) = relu(h0 + B relu(A z))`` with two 3x3 convolutions A and B, and no normalisation inside.

    Args:
        shape: channels, height and width of ``z`` and ``h0``.
        lipschitz: bound on the Lipschitz constant of f in z, in (0, 1) for an equilibrium: each convolution's
            operator norm is kept at most its square root (ReLU is 1-Lipschitz), so that f is a contraction
            with one fixed point. ``None`` leaves the weights free, as in an explicit network.
        inner_width: channels between A and B, as many as ``z`` has where ``None``.
    """

    def __init__(self, shape: Shape, lipschitz: float | None = 0.9, inner_width: int | None = None) -> None:
        super().__init__()
        if lipschitz is not None and not 0 < lipschitz < 1:
            raise UserError(f"lipschitz is {lipschitz}, but a contraction needs a value above 0 and below 1.")
        if len(shape) != 3:
            raise UserError(f"ConvCell works on maps (C, H, W), but H0 has the shape {shape} a sample.")
        channels, *size = shape
        between = channels if inner_width is None else inner_width
        if between < 1:
            raise UserError(f"inner_width is {between}, but a cell has at least 1 channel inside.")
        self.lipschitz = lipschitz
        self.inner = self._conv(shape, between)
        self.outer = self._conv((between, *size), channels)

    def _conv(self, shape: Shape, out_channels: int) -> nn.Conv2d:
        if self.lipschitz is None:
            return nn.Conv2d(shape[0], out_channels, 3, padding=1, bias=False)
        return BoundedConv2d(shape, self.lipschitz**0.5, out_channels)

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        """``relu(h0 + B relu(A z))``."""
        return self.at(h0)(z)

    def at(self, h0: Tensor) -> Callable[[Tensor], Tensor]:
        """The map with both weights scaled once, after one more power iteration when training."""
        inner, outer = self._weight(self.inner), self._weight(self.outer)

        def f(z: Tensor) -> Tensor:
            return F.relu(h0 + F.conv2d(F.relu(F.conv2d(z, inner, padding=1)), outer, padding=1))

        return f

    def _weight(self, conv: nn.Conv2d) -> Tensor:
        if not isinstance(conv, BoundedConv2d):
            return conv.weight
        if self.training:
            conv.power_iteration()
        return conv.bounded_weight()
