"""Anderson acceleration that stays exact at small residuals (Walker & Ni, "Anderson Acceleration for
Fixed-Point Iterations", SIAM J. Numer. Anal. 2011).

Differences from torchdeq's ``anderson``: the ridge is relative to each sample's Gram matrix (an absolute one
switches the acceleration off once residuals are small), and what :mod:`~deq_collapse.models.solvers.loop`
says of each sample.
"""

from typing import Unpack

import torch
from torch import Tensor

from deq_collapse.models.solvers.loop import Function, Options, Solution, Step, solve, workspace


def anderson(
    func: Function, x0: Tensor, window: int = 5, ridge: float = 1e-7, **options: Unpack[Options]
) -> Solution:
    """Solves ``x = func(x)`` by Anderson acceleration without damping.

    Args:
        func: see :func:`~deq_collapse.models.solvers.loop.solve`, also for the options and what is returned.
        x0: start, shape ``(N, ...)``.
        window: number of past residuals that are combined.
        ridge: see :func:`mixing_weights`.
        options: ``max_iter``, ``tol`` and the others that every solver takes.
    """
    with workspace(x0, window) as memory:
        return solve(func, x0, _Mixing(memory, ridge), **options)


class _Mixing(Step):
    """The combination of the last values ``f(x)`` whose combined residual is least."""

    def __init__(self, memory: Tensor, ridge: float) -> None:
        self.residuals = memory
        n, self.window, d = memory.shape
        self.gram = memory.new_empty(n, self.window, self.window)
        self.mixture = memory.new_empty(n, d)
        self.values: list[Tensor] = []
        self.ridge = ridge
        self.evaluations = 0

    def distance(self, x: Tensor, fx: Tensor) -> Tensor:
        slot, used = self.evaluations % self.window, min(self.evaluations + 1, self.window)
        self.evaluations += 1
        self.values[slot : slot + 1] = [fx]
        residual = torch.sub(fx, x, out=self.residuals[:, slot])
        # A row times a matrix: on the CPU ten times as fast as the same matrix times a column.
        row = torch.bmm(residual[:, None], self.residuals[:, :used].mT)[:, 0]
        self.gram[:, slot, :used] = row
        self.gram[:, :used, slot] = row
        return row[:, slot].sqrt()

    def __call__(self, x: Tensor, fx: Tensor) -> Tensor:
        used = len(self.values)
        if used == 1:
            return fx
        first, *others = torch.split(mixing_weights(self.gram[:, :used, :used], self.ridge), 1, dim=1)
        torch.mul(self.values[0], first, out=self.mixture)
        for value, weight in zip(self.values[1:], others, strict=True):
            self.mixture.addcmul_(value, weight)
        return self.mixture


def mixing_weights(gram: Tensor, ridge: float) -> Tensor:
    """Weights of the combination of past residuals with the least norm, among those that sum to one.

    Args:
        gram: inner products of the past residuals of each sample, shape ``(N, m, m)``.
        ridge: Tikhonov term as a fraction of each sample's mean squared residual.

    Returns:
        Shape ``(N, m)``, each row summing to one; all equal where the system is singular.
    """
    n, m = gram.shape[:2]
    system = gram / gram.diagonal(dim1=1, dim2=2).mean(1).view(n, 1, 1)
    system.diagonal(dim1=1, dim2=2).add_(ridge)
    solution = torch.linalg.solve_ex(system, gram.new_ones(n, m, 1))[0].squeeze(2)
    weights = solution / solution.sum(1, keepdim=True)
    regular = weights.sum(1, keepdim=True) < 2  # it is 1, or NaN where the system is singular
    return torch.where(regular, weights, 1.0 / m)
