"""Plain iteration, optionally damped (Krasnoselskii 1955)."""

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from deq_collapse.models.solvers.base import Solver, check_damping
from deq_collapse.models.solvers.loop import Function, Options, Result, Step, solve


@dataclass(frozen=True)
class FixedPoint(Solver):
    """Plain iteration: ``x <- damping x + (1 - damping) f(x)``.

    Args:
        damping: share of the old point to keep, in [0, 1); 0 is no damping. It may stabilise an iteration
            that oscillates because its Jacobian has eigenvalues below -1, and slows down any other.
    """

    damping: float = 0.0

    def check(self) -> None:
        """See :class:`~deq_collapse.models.solvers.base.Solver`."""
        check_damping(self.damping)

    def __call__(self, func: Function, x0: Tensor, **options: Unpack[Options]) -> Result:
        """See :class:`~deq_collapse.models.solvers.base.Solver`."""
        return solve(func, x0, _Damped(self.damping) if self.damping else Step(), **options)


class _Damped(Step):
    """Goes part of the way from x to ``f(x)``."""

    def __init__(self, damping: float) -> None:
        self.damping = damping

    def __call__(self, x: Tensor, fx: Tensor) -> Tensor:
        return torch.lerp(fx, x, self.damping)
