"""Anderson acceleration that stays exact at small residuals (Walker & Ni, "Anderson Acceleration for
Fixed-Point Iterations", SIAM J. Numer. Anal. 2011).

Differences from torchdeq's ``anderson``: the ridge is relative to each sample's Gram matrix (an absolute one
switches the acceleration off once residuals are small), and the per-sample behaviour described in
:mod:`~deq_collapse.models.solvers.loop`.
"""

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from deq_collapse.errors import UserError
from deq_collapse.models.solvers.base import Solver, check_damping, check_window
from deq_collapse.models.solvers.loop import Function, Options, Result, Step, solve, workspace


@dataclass(frozen=True)
class Anderson(Solver):
    """Anderson acceleration: the next point is the combination of the last values ``f(x)`` that would have
    the smallest residual if the map were linear.

    Args:
        window: number of past residuals combined, at least 1.
        ridge: at least 0, see :func:`mixing_weights`.
        damping: share of the combined points in the next one, in [0, 1), the rest being their values; 0 is no
            damping (``1 - beta`` of Walker & Ni).
    """

    window: int = 5
    ridge: float = 1e-7
    damping: float = 0.0

    def check(self) -> None:
        """See :class:`~deq_collapse.models.solvers.base.Solver`."""
        check_window(self.window)
        check_damping(self.damping)
        if not self.ridge >= 0:
            raise UserError(f"ridge is {self.ridge}, but it is at least 0.")

    def __call__(self, func: Function, x0: Tensor, **options: Unpack[Options]) -> Result:
        """See :class:`~deq_collapse.models.solvers.base.Solver`."""
        with workspace(x0, self.window, options.get("max_iter")) as memory:
            return solve(func, x0, _Mixing(memory, self.ridge, self.damping), **options)


class _Mixing(Step):
    """The combination of the last values ``f(x)`` with the smallest combined residual."""

    def __init__(self, memory: Tensor, ridge: float, damping: float) -> None:
        self.residuals = memory
        n, self.window, d = memory.shape
        self.gram = memory.new_empty(n, self.window, self.window)
        self.mixture = memory.new_empty(n, d)
        self.values: list[Tensor] = []
        self.ridge, self.damping = ridge, damping
        self.evaluations = 0

    def distance(self, x: Tensor, fx: Tensor) -> Tensor:
        slot, used = self.evaluations % self.window, min(self.evaluations + 1, self.window)
        self.evaluations += 1
        self.values[slot : slot + 1] = [fx]
        residual = torch.sub(fx, x, out=self.residuals[:, slot])
        # A row times a matrix is ten times as fast on the CPU as the same matrix times a column.
        row = torch.bmm(residual[:, None], self.residuals[:, :used].mT)[:, 0]
        self.gram[:, slot, :used] = row
        self.gram[:, :used, slot] = row
        return row[:, slot].sqrt()

    def __call__(self, x: Tensor, fx: Tensor) -> Tensor:
        used = len(self.values)
        if used == 1:
            return torch.lerp(fx, x, self.damping) if self.damping else fx
        weights = mixing_weights(self.gram[:, :used, :used], self.ridge)
        first, *others = torch.split(weights, 1, dim=1)
        torch.mul(self.values[0], first, out=self.mixture)
        for value, weight in zip(self.values[1:], others, strict=True):
            self.mixture.addcmul_(value, weight)
        if self.damping:  # a point is its value minus its residual
            self.mixture -= self.damping * torch.bmm(weights[:, None], self.residuals[:, :used])[:, 0]
        return self.mixture

    def keep(self, rows: Tensor) -> None:
        self.residuals, self.gram, self.mixture = self.residuals[rows], self.gram[rows], self.mixture[rows]
        self.values = [value[rows] for value in self.values]


def mixing_weights(gram: Tensor, ridge: float) -> Tensor:
    """Weights, summing to one, of the combination of past residuals with the smallest norm.

    Args:
        gram: inner products of the past residuals of each sample, shape ``(N, m, m)``.
        ridge: Tikhonov term as a fraction of each sample's mean squared residual.

    Returns:
        Shape ``(N, m)``, each row summing to one; all equal if the system is singular.
    """
    n, m = gram.shape[:2]
    system = gram / gram.diagonal(dim1=1, dim2=2).mean(1).view(n, 1, 1)
    system.diagonal(dim1=1, dim2=2).add_(ridge)
    solution = torch.linalg.solve_ex(system, gram.new_ones(n, m, 1))[0].squeeze(2)
    weights = solution / solution.sum(1, keepdim=True)
    regular = weights.sum(1, keepdim=True) < 2  # it is 1, or NaN if the system is singular
    return torch.where(regular, weights, 1.0 / m)
