"""Contractive cells of two bounded linear maps: convolutions for feature maps, matrices for vectors."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models.cells.base import Cell, Shape, check_dims, check_lipschitz, check_width
from deq_collapse.models.cells.bounded import LIPSCHITZ, Bounded, BoundedConv2d, BoundedLinear, bounded_weight
from deq_collapse.models.cells.kernels import check_std


class _TwoMaps(Cell):
    """``f(z, h0) = act(h0 + B act(A z))`` with linear maps A, B and a 1-Lipschitz ``act``."""

    inner: nn.Conv2d | nn.Linear
    outer: nn.Conv2d | nn.Linear

    @abstractmethod
    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """A weight applied to a batch."""

    def act(self, x: Tensor) -> Tensor:
        """ReLU."""
        return F.relu(x)

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        """``act(h0 + B act(A z))``."""
        return self.at(h0)(z)

    def at(self, h0: Tensor) -> Callable[[Tensor], Tensor]:
        """The map, with both weights scaled once."""
        inner, outer = bounded_weight(self.inner), bounded_weight(self.outer)

        def f(z: Tensor) -> Tensor:
            return self.act(h0 + self.linear(self.act(self.linear(z, inner)), outer))

        return f

    def lipschitz_bound(self) -> float | None:
        """The product of the norms of A and B, each from above; ``None`` for free weights."""
        if isinstance(self.inner, Bounded) and isinstance(self.outer, Bounded):
            return self.inner.norm_bound() * self.outer.norm_bound()
        return None


class ConvCell(_TwoMaps):
    """``f(z, h0) = relu(h0 + B relu(A z))`` with two 3x3 convolutions A and B, and no normalisation inside.

    Guaranteed in eval mode: f is a contraction with factor ``lipschitz``, so it has exactly one fixed point,
    to which plain iteration converges from everywhere. Each convolution's operator norm, zero padding
    included, is at most the square root of ``lipschitz``, and ReLU is 1-Lipschitz. While weights train, the
    norms are tracked and may be up to one per cent higher (see :class:`Bounded`).

    ``lipschitz_bound`` is exactly the product of those norms for maps of up to 1024 numbers. For larger maps
    it comes from larger circular convolutions: it exceeds the product by 3% to 15% at 8x8 and by less for
    larger maps, but by up to 60% for many channels at 5x5. If you need a proof there, choose a lower
    ``lipschitz``.

    Args:
        shape: channels, height and width of ``z`` and ``h0``.
        lipschitz: the contraction factor, in (0, 1). ``None`` leaves the weights free, as in an explicit
            network, and guarantees nothing.
        inner_width: channels between A and B; ``None`` for as many as ``z`` has.
        init_std: standard deviation of the initial weights, drawn from a normal distribution; ``None`` keeps
            torch's own initialisation, 0.028 at 48 channels.

    Raises:
        UserError: for an argument out of range, and for an H0 of vectors.
    """

    def __init__(
        self,
        shape: Shape,
        lipschitz: float | None = LIPSCHITZ,
        inner_width: int | None = None,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        check_dims("ConvCell", shape, 3)
        between = check_width(inner_width, shape[0])
        self.lipschitz, self.init_std = lipschitz, init_std
        self.inner = self._conv(shape, between)
        self.outer = self._conv((between, *shape[1:]), shape[0])

    def _conv(self, shape: Shape, out_channels: int) -> nn.Conv2d:
        if self.lipschitz is None:
            made = nn.Conv2d(shape[0], out_channels, 3, padding=1, bias=False)
        else:
            check_lipschitz(self.lipschitz)
            made = BoundedConv2d(shape, self.lipschitz**0.5, out_channels)
        if self.init_std is not None:
            check_std(self.init_std)
            nn.init.normal_(made.weight, std=self.init_std)
            if isinstance(made, Bounded):
                made.power_iteration(50)
        return made

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """A convolution, (N, C, H, W) to (N, C', H, W)."""
        return F.conv2d(x, weight, padding=1)


class MLPCell(_TwoMaps):
    """``f(z, h0) = act(h0 + B act(A z))`` on vectors, with two matrices A and B.

    Guaranteed in eval mode: f is a contraction with factor ``lipschitz``, so it has exactly one fixed point,
    to which plain iteration converges; the largest singular values of A and B are at most the square root of
    ``lipschitz``. The certificate is exact.

    Args:
        shape: length of ``z`` and ``h0``.
        lipschitz: the contraction factor, in (0, 1). ``None`` leaves the weights free and guarantees nothing.
        activation: ``relu`` or ``tanh``, in both places.
        inner_width: length between A and B; ``None`` for that of ``z``.

    Raises:
        UserError: for an argument out of range, and for an H0 of maps.
    """

    def __init__(
        self,
        shape: Shape,
        lipschitz: float | None = LIPSCHITZ,
        activation: Literal["relu", "tanh"] = "relu",
        inner_width: int | None = None,
    ) -> None:
        super().__init__()
        check_dims("MLPCell", shape, 1)
        if activation not in ("relu", "tanh"):
            raise UserError(f"the activation is {activation}, but it is relu or tanh.")
        between = check_width(inner_width, shape[0])
        self.lipschitz, self.activation = lipschitz, activation
        self.inner = self._matrix(shape[0], between)
        self.outer = self._matrix(between, shape[0])

    def _matrix(self, in_features: int, out_features: int) -> nn.Linear:
        if self.lipschitz is None:
            return nn.Linear(in_features, out_features, bias=False)
        check_lipschitz(self.lipschitz)
        return BoundedLinear((in_features,), self.lipschitz**0.5, out_features)

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """A matrix product, (N, d) to (N, d')."""
        return F.linear(x, weight)

    def act(self, x: Tensor) -> Tensor:
        """ReLU or tanh."""
        return torch.tanh(x) if self.activation == "tanh" else F.relu(x)
