"""Solvers of ``x = f(x)`` for a batch of samples, registered with torchdeq: Anderson acceleration, Broyden's
method and plain iteration, each with relative tolerances and a status per sample.
"""

from collections.abc import Callable
from typing import Any, Unpack

from torch import Tensor
from torchdeq.solver import register_solver

from deq_collapse.models.solvers.anderson import anderson, mixing_weights
from deq_collapse.models.solvers.broyden import broyden
from deq_collapse.models.solvers.loop import (
    CAPPED,
    CONVERGED,
    DIVERGED,
    Function,
    Options,
    Solution,
    Step,
    norms,
    relative_residual,
    solve,
)

__all__ = [
    "CAPPED",
    "CONVERGED",
    "DIVERGED",
    "SOLVERS",
    "anderson",
    "broyden",
    "fixed_point",
    "mixing_weights",
    "norms",
    "relative_residual",
]


def fixed_point(func: Function, x0: Tensor, **options: Unpack[Options]) -> Solution:
    """Solves ``x = func(x)`` by plain iteration, see :func:`~deq_collapse.models.solvers.loop.solve`."""
    return solve(func, x0, Step(), **options)


SOLVERS: dict[str, Callable[..., Any]] = {
    "anderson_relative": anderson,
    "broyden_relative": broyden,
    "fixed_point_relative": fixed_point,
}
"""Our solvers under the names torchdeq knows them by."""

for _name, _solver in SOLVERS.items():
    register_solver(_name, _solver)
