"""OptEq's cell, whose equilibrium minimises a convex function (Xie et al., "Optimization Induced Equilibrium
Networks", IEEE Transactions on Pattern Analysis and Machine Intelligence 2023, published online in 2022).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models.cells.base import Cell, Shape, check_lipschitz, check_width
from deq_collapse.models.cells.bounded import LIPSCHITZ, BoundedConv2d, BoundedLinear


class OptEqCell(Cell):
    """``f(z, h0) = mu W^T relu(W z + U h0 + b) + (1 - mu) z`` with ``||W||^2 <= lipschitz``.

    W and U are 3x3 convolutions on maps, and matrices on vectors.

    Guaranteed in eval mode: the fixed point is the only minimiser of ``objective``, which is strongly convex
    with a constant of at least ``1 - lipschitz``; for ``mu = 1``, f is a proximal operator. f is a
    contraction with factor ``1 - mu (1 - lipschitz)``, so plain iteration converges, to the same point for
    every mu. Its Jacobian is symmetric and positive semi-definite. While weights train, the norm of W is
    tracked and may be up to one per cent higher (see :class:`Bounded`).

    Args:
        shape: of ``z`` and ``h0``, (C, H, W) or (d,).
        lipschitz: the square of the largest norm allowed for W, in (0, 1); the paper allows 1.
        mu: damping, in (0, 1]; 1 is none. An equilibrium does not depend on it; an explicit stack does.
        inner_width: channels or length of ``W z``; ``None`` for those of ``z``.

    Raises:
        UserError: for an argument out of range, and for samples that are neither maps nor vectors.
    """

    def __init__(
        self, shape: Shape, lipschitz: float = LIPSCHITZ, mu: float = 1.0, inner_width: int | None = None
    ) -> None:
        super().__init__()
        check_lipschitz(lipschitz)
        if not 0 < mu <= 1:
            raise UserError(f"mu is {mu}, but a step of the iteration needs a value above 0 and at most 1.")
        if len(shape) not in (1, 3):
            raise UserError(
                f"OptEqCell works on maps (C, H, W) or vectors (d), but H0 has the shape {shape} a sample."
            )
        self.mu = mu
        inner = check_width(inner_width, shape[0])
        self.W: BoundedConv2d | BoundedLinear
        self.U: nn.Conv2d | nn.Linear
        if len(shape) == 1:
            self.W = BoundedLinear(shape, lipschitz**0.5, inner)
            self.U = nn.Linear(shape[0], inner)
        else:
            self.W = BoundedConv2d(shape, lipschitz**0.5, inner)
            self.U = nn.Conv2d(shape[0], inner, 3, padding=1)

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        """One evaluation, of the shape of ``z``."""
        return self.at(h0)(z)

    def at(self, h0: Tensor) -> Callable[[Tensor], Tensor]:
        """The map, with W scaled once and ``U h0 + b`` computed once."""
        scale, drive = self.W.scale(), self.U(h0)

        def f(z: Tensor) -> Tensor:
            step = scale * self.W.adjoint(F.relu(scale * self.W.linear(z) + drive))
            return step if self.mu == 1 else torch.lerp(z, step, self.mu)

        return f

    def objective(self, z: Tensor, h0: Tensor) -> Tensor:
        """``(||z||^2 - ||relu(W z + U h0 + b)||^2) / 2`` for each sample, (N,).

        Its gradient in z is ``z - f(z)`` with ``mu = 1``.
        """
        inner = F.relu(self.W.scale() * self.W.linear(z) + self.U(h0))
        return (z.flatten(1).square().sum(1) - inner.flatten(1).square().sum(1)) / 2

    def lipschitz_bound(self) -> float:
        """``1 - mu + mu ||W||^2``, with the norm bounded from above."""
        return 1 - self.mu + self.mu * self.W.norm_bound() ** 2
