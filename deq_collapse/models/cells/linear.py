"""The linear cell, whose fixed point has a closed form."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.models.cells.base import Cell, Shape, check_dims, check_lipschitz
from deq_collapse.models.cells.bounded import LIPSCHITZ, Bounded, BoundedLinear, bounded_weight


class LinearCell(Cell):
    """``f(z, h0) = A z + U h0 + b`` on vectors, so that ``z* = (I - A)^-1 (U h0 + b)``.

    Guaranteed in eval mode: the largest singular value of A is at most ``lipschitz``, so f is a contraction
    with that factor and has exactly one fixed point, to which plain iteration converges. The certificate is
    exact.

    Args:
        shape: length of ``z`` and ``h0``.
        lipschitz: the contraction factor, in (0, 1). ``None`` leaves A free and guarantees nothing.

    Raises:
        UserError: for a ``lipschitz`` out of range, and for an H0 of maps.
    """

    def __init__(self, shape: Shape, lipschitz: float | None = LIPSCHITZ) -> None:
        super().__init__()
        check_dims("LinearCell", shape, 1)
        self.A: nn.Linear
        if lipschitz is None:
            self.A = nn.Linear(shape[0], shape[0], bias=False)
        else:
            check_lipschitz(lipschitz)
            self.A = BoundedLinear(shape, lipschitz)
        self.U = nn.Linear(shape[0], shape[0])

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        """``A z + U h0 + b``."""
        return self.at(h0)(z)

    def at(self, h0: Tensor) -> Callable[[Tensor], Tensor]:
        """The map, with A scaled once and ``U h0 + b`` computed once."""
        A, right = bounded_weight(self.A), self.U(h0)
        return lambda z: F.linear(z, A) + right

    def closed_form(self, h0: Tensor) -> Tensor:
        """``(I - A)^-1 (U h0 + b)``, the fixed point, (N, d); differentiable."""
        A, right = bounded_weight(self.A), self.U(h0)
        z: Tensor = torch.linalg.solve(torch.eye(len(A), dtype=A.dtype, device=A.device) - A, right.T).T
        return z

    def lipschitz_bound(self) -> float | None:
        """The largest singular value of A; ``None`` for free weights."""
        return self.A.norm_bound() if isinstance(self.A, Bounded) else None
