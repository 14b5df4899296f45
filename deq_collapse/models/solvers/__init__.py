"""Solvers of ``x = f(x)`` for a batch of samples: Anderson acceleration, Broyden's method and plain
iteration, each with relative tolerances and a status per sample.
"""

from torchdeq.solver import register_solver

from deq_collapse.errors import UserError
from deq_collapse.models.solvers.anderson import Anderson, mixing_weights
from deq_collapse.models.solvers.base import Solver
from deq_collapse.models.solvers.broyden import Broyden
from deq_collapse.models.solvers.fixed_point import FixedPoint
from deq_collapse.models.solvers.loop import CAPPED, CONVERGED, DIVERGED, norms, relative_residual

__all__ = [
    "CAPPED",
    "CONVERGED",
    "DIVERGED",
    "SOLVERS",
    "Anderson",
    "Broyden",
    "FixedPoint",
    "Solver",
    "mixing_weights",
    "name_of",
    "norms",
    "registered",
    "relative_residual",
    "solver_of",
]

SOLVERS: dict[str, Solver] = {
    "anderson_relative": Anderson(),
    "broyden_relative": Broyden(),
    "fixed_point_relative": FixedPoint(),
}
"""The solvers with their default settings, by their names in configurations and tables."""


def solver_of(given: str | Solver) -> Solver:
    """The given solver, or the one of that name.

    Raises:
        UserError: for an unknown name, and for settings out of range.
    """
    if isinstance(given, Solver):
        given.check()
        return given
    if given not in SOLVERS:
        raise UserError(
            f"the solver is {given}, but it is one of {', '.join(SOLVERS)}, or the class_path of a Solver."
        )
    return SOLVERS[given]


def name_of(solver: Solver) -> str:
    """Its name in tables or, if its settings differ from the defaults, all of them; of a class that shows
    none, its import path.
    """
    kind = type(solver)
    shown = f"{kind.__module__}.{kind.__qualname__}" if kind.__repr__ is object.__repr__ else repr(solver)
    return next((name for name, usual in SOLVERS.items() if usual == solver), shown)


def registered(solver: Solver) -> str:
    """Registers a solver with torchdeq under the text that this returns: its settings, and its module, since
    classes of one name may be two.
    """
    name = f"{type(solver).__module__}.{solver!r}"
    register_solver(name, solver)
    return name
