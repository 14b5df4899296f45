"""The monotone cell, which has exactly one fixed point for any weights (Winston & Kolter, "Monotone Operator
Equilibrium Networks", NeurIPS 2020).
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models.cells.base import Cell, Shape
from deq_collapse.models.cells.circular import linear_map, matrices
from deq_collapse.models.cells.norms import matrix_norm

Splitting = Literal["peaceman_rachford", "forward_backward"]


class MonotoneCell(Cell):
    """``f(z, h0) = relu(W z + h0)`` with ``W = (1 - m) I - A^T A + B - B^T``, A and B free.

    A and B are 3x3 convolutions with circular padding on maps, and matrices on vectors. Guaranteed for any
    weights, also in training: ``M = I - W`` is strongly monotone, ``<M x, x> >= m ||x||^2``, so f has exactly
    one fixed point z*, and z* is ``1/m``-Lipschitz in ``h0``. Plain iteration of f may diverge. Solvers
    therefore iterate a splitting of ``0 in M z - h0 + N(z)``, with N the normal cone of z >= 0, which is a
    contraction:

    * ``peaceman_rachford``: ``u -> (2 V - I) |u| + 2 alpha V h0`` with ``V = (I + alpha M)^-1``, and
      ``z* = relu(u*)``, for any alpha > 0; here 1 over the root mean square singular value of M
      (of a convolution, the largest over frequencies). It needs a tenth to a third of the other one's
      evaluations, each at the same cost, plus one inverse per solve.
    * ``forward_backward``: ``z -> relu(z - alpha (M z - h0))``, for alpha in (0, 2 m / ||M||^2); here
      ``m / ||M||^2``, with a factor of at most ``sqrt(1 - (m / ||M||)^2)``: at m = 0.5, 40 evaluations miss a
      tolerance of 1e-4 once the weights have grown.

    Plain iteration of either converges; ``lipschitz_bound`` is exactly its factor. ``forward`` is f itself,
    one layer of an explicit network.

    With a border, z is held at 0 on the outermost pixels, so that nothing passes from one side of a map to
    the other, and N is the normal cone of all such z >= 0. Everything above stays true; f is ``P relu(W z +
    h0)``, P the projection, and the splittings use ``P relu`` and its reflection in place of ``relu`` and the
    absolute value.

    Args:
        shape: of ``z`` and ``h0``, (C, H, W) or (d,).
        m: strong monotonicity, above 0; the smaller m, the more z* amplifies and the longer a solve takes.
        splitting: the map that solvers iterate.
        border: width in pixels of that border of a map; H0 covers it.
        weight_norm: learn A = sqrt(abs(g)) A' / ||A'|| and B = h B' / ||B'||, as the published convolutions
            do, with two scalars g and h, both 1 at first.

    Raises:
        UserError: for an argument out of range, and for samples that are neither maps nor vectors.
    """

    inside: Tensor | None

    def __init__(
        self,
        shape: Shape,
        m: float = 0.5,
        splitting: Splitting = "peaceman_rachford",
        border: int = 0,
        weight_norm: bool = False,
    ) -> None:
        super().__init__()
        if len(shape) not in (1, 3):
            raise UserError(
                f"MonotoneCell works on maps (C, H, W) or vectors (d), but H0 has the shape {shape} a sample."
            )
        if not 0 < m < math.inf:
            raise UserError(f"m is {m}, but an operator is strongly monotone for a number above 0.")
        if splitting not in ("peaceman_rachford", "forward_backward"):
            raise UserError(f"the splitting is {splitting}, but it is peaceman_rachford or forward_backward.")
        self.shape, self.m, self.splitting = shape, m, splitting
        self.register_buffer("inside", _inside(shape, border), persistent=False)
        self.A, self.B = self._map(), self._map()
        self.g, self.h = (nn.Parameter(torch.ones(())) if weight_norm else None for _ in range(2))

    def _map(self) -> nn.Conv2d | nn.Linear:
        width = self.shape[0]
        if len(self.shape) == 1:
            return nn.Linear(width, width, bias=False)
        return nn.Conv2d(width, width, 3, padding=1, padding_mode="circular", bias=False)

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        """``relu(W z + h0)``, 0 on the border."""
        return self._positive(z - linear_map(self._operator(), self.shape)(z) + h0)

    def at(self, h0: Tensor) -> Callable[[Tensor], Tensor]:
        """The map of the splitting, with its matrices computed once."""
        contraction, drive = self._split(self._operator())
        turn, x = linear_map(contraction, self.shape), linear_map(drive, self.shape)(h0)
        if self.splitting == "forward_backward":
            return lambda z: self._positive(turn(z) + x)
        return lambda u: turn(self._reflected(u)) + x

    def output(self, state: Tensor) -> Tensor:
        """``z = relu(u)``, 0 on the border; a state z is its own."""
        return self._positive(state)

    @torch.no_grad()
    def lipschitz_bound(self) -> float:
        """The exact contraction factor of the splitting's map: what it does besides has factor 1."""
        contraction, _ = self._split(self._operator(torch.float64))
        return matrix_norm(contraction)

    def _positive(self, z: Tensor) -> Tensor:
        """The nearest state that is not negative and 0 on the border."""
        return F.relu(z) if self.inside is None else F.relu(z) * self.inside

    def _reflected(self, u: Tensor) -> Tensor:
        """``2 positive(u) - u``."""
        return u.abs() if self.inside is None else torch.where(self.inside > 0, u.abs(), -u)

    def _operator(self, dtype: torch.dtype | None = None) -> Tensor:
        """``M = m I + A^T A - B + B^T``, as matrices for each frequency."""
        a, b = self.A.weight.to(dtype), self.B.weight.to(dtype)
        gain: Tensor | float = 1.0
        if self.g is not None and self.h is not None:
            gain, a, b = self.g.abs(), a / a.norm(), self.h * b / b.norm()
        A, B = matrices(a, self.shape), matrices(b, self.shape)
        return self.m * _identity(A) + gain * (A.mT @ A) - B + B.mT

    def _split(self, M: Tensor) -> tuple[Tensor, Tensor]:
        """The matrices that the splitting applies to its state and to h0."""
        if self.splitting == "forward_backward":
            step = self.m / matrix_norm(M) ** 2
            return _identity(M) - step * M, step * _identity(M)
        alpha = M.detach().square().sum((1, 2)).div(M.shape[1]).max().rsqrt()
        resolvent = torch.linalg.inv(_identity(M) + alpha * M)
        return 2 * resolvent - _identity(M), 2 * alpha * resolvent


def _inside(shape: Shape, border: int) -> Tensor | None:
    """1 inside the border of a map and 0 on it, (H, W); None if there is none.

    Raises:
        UserError: for a border of vectors, or one that leaves no pixel inside.
    """
    if border == 0:
        return None
    if len(shape) == 1 or border < 0 or 2 * border >= min(shape[1:]):
        raise UserError(
            f"border is {border}, but it is at least 0 and leaves pixels inside: H0 has the shape {shape} a"
            " sample."
        )
    inside = torch.zeros(shape[1:])
    inside[border:-border, border:-border] = 1
    return inside


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device).expand_as(like)
