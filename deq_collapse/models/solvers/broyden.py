"""Broyden's good method with a limited memory of steps (Broyden, "A Class of Methods for Solving Nonlinear
Simultaneous Equations", Math. Comp. 1965; in the form of Kelley, "Iterative Methods for Linear and Nonlinear
Equations", SIAM 1995, section 7.3).

Differences from torchdeq's ``broyden``: it keeps one vector per evaluation instead of two, and never more
than a window of them; a sample whose update is singular restarts its memory instead of dividing by zero; and
the per-sample behaviour described in :mod:`~deq_collapse.models.solvers.loop`.
"""

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from deq_collapse.models.solvers.base import Solver, check_window
from deq_collapse.models.solvers.loop import Function, Options, Result, Step, norms, solve, workspace

SINGULAR = 1e-4
"""An update that would lengthen the step by more than the inverse of this is not applied."""


@dataclass(frozen=True)
class Broyden(Solver):
    """Broyden's method with full steps.

    Args:
        window: number of past steps kept, at least 1; then the memory restarts.
    """

    window: int = 10

    def check(self) -> None:
        """See :class:`~deq_collapse.models.solvers.base.Solver`."""
        check_window(self.window)

    def __call__(self, func: Function, x0: Tensor, **options: Unpack[Options]) -> Result:
        """See :class:`~deq_collapse.models.solvers.base.Solver`."""
        with workspace(x0, self.window, options.get("max_iter")) as memory:
            return solve(func, x0, _Secant(memory), **options)


class _Secant(Step):
    """The step ``s = -H g`` for the residual ``g = f(x) - x``, where H is Broyden's inverse Jacobian of g.

    H starts as -I, and each step extends it: ``H_{k+1} = (I + s_{k+1} s_k^T / ||s_k||^2) H_k``. So only the
    steps have to be kept, and their inner products turn the product of factors into one triangular solve.
    Steps are stored in units of the first one: adjoint equations are so small that squares would underflow.
    """

    def __init__(self, memory: Tensor) -> None:
        self.steps = memory
        self.used = 0

    def distance(self, x: Tensor, fx: Tensor) -> Tensor:
        self.residual = fx - x
        return norms(self.residual)

    def __call__(self, x: Tensor, fx: Tensor) -> Tensor:
        g, (n, window, _) = self.residual, self.steps.shape
        if self.used in (0, window):
            self.unit = norms(g)[:, None].clamp_min(torch.finfo(g.dtype).tiny)
            self.gram = g.new_zeros(n, window, window + 1)
            self.inverse = g.new_zeros(n, window)
            self.used = 0
            return self._take(x, g, torch.ones_like(self.unit))
        c = self._coefficients(torch.bmm(g[:, None], self.steps[:, : self.used].mT)[:, 0] / self.unit)
        remaining = 1 - c[:, -1:]
        regular = remaining.abs() >= SINGULAR
        self.inverse *= regular
        c = torch.where(regular, c, 0) * self.unit
        z = torch.baddbmm(g[:, None], c[:, None, :-1], self.steps[:, 1 : self.used])[:, 0]
        return self._take(x, z, torch.where(regular, 1 / remaining, 1))

    def keep(self, rows: Tensor) -> None:
        self.residual = self.residual[rows]
        used = self.steps[:, : self.used][rows]  # what is not used yet needs no copy
        self.steps = self.steps[: len(rows)]
        self.steps[:, : self.used] = used
        if self.used:
            self.unit, self.gram, self.inverse = self.unit[rows], self.gram[rows], self.inverse[rows]

    def _coefficients(self, projections: Tensor) -> Tensor:
        """``c_j = s_j^T z_j / ||s_j||^2`` with ``z_j = g + sum_{i<j} c_i s_{i+1}``, from ``s_j^T g``."""
        inverse = self.inverse[:, : self.used, None]
        # Column i holds the products with s_{i+1}; the one beyond the last step is not used.
        system = -inverse * self.gram[:, : self.used, 1 : self.used + 1].tril(-1)
        right = inverse * projections[:, :, None]
        solution: Tensor = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
        return solution[:, :, 0]

    def _take(self, x: Tensor, direction: Tensor, factor: Tensor) -> Tensor:
        """Takes the step ``factor * direction`` from x, and keeps it."""
        slot = self.used
        self.used += 1
        step = torch.mul(direction, factor / self.unit, out=self.steps[:, slot])
        row = torch.bmm(step[:, None], self.steps[:, : self.used].mT)[:, 0]
        self.gram[:, slot, : self.used] = row
        self.gram[:, : self.used, slot] = row
        self.inverse[:, slot] = torch.where(row[:, -1] > 0, 1 / row[:, -1], 0)
        return torch.addcmul(x, direction, factor)
