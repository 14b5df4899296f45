"""What a solver is: a small object that solves ``x = f(x)`` for a batch of samples."""

from abc import ABC, abstractmethod
from typing import Unpack

from torch import Tensor

from deq_collapse.errors import UserError
from deq_collapse.models.solvers.loop import Function, Options, Result


class Solver(ABC):
    """Base of every solver; a frozen dataclass of its settings, so that its ``repr`` has all of them."""

    @abstractmethod
    def __call__(self, func: Function, x0: Tensor, **options: Unpack[Options]) -> Result:
        """Solves ``x = func(x)``, see :func:`~deq_collapse.models.solvers.loop.solve`.

        Args:
            func: the map; its value for a sample must depend on that sample alone.
            x0: start, shape ``(N, ...)``.
            options: ``max_iter``, ``tol`` and the others that every solver takes.
        """

    def check(self) -> None:  # noqa: B027 - one of a user's own need not have any
        """Refuses settings out of range. An equilibrium asks for it, not the constructor: jsonargparse would
        take that for a value of another type.

        Raises:
            UserError: for one of them.
        """


def check_window(window: int) -> None:
    """Refuses a memory of no point.

    Raises:
        UserError: unless ``window`` is at least 1.
    """
    if window < 1:
        raise UserError(f"window is {window}, but a solver remembers at least 1 evaluation.")


def check_damping(damping: float) -> None:
    """Refuses a damping under which no step is made, or none towards ``f(x)``.

    Raises:
        UserError: unless ``damping`` is at least 0 and below 1.
    """
    if not 0 <= damping < 1:
        raise UserError(f"damping is {damping}, but it is at least 0 (no damping) and below 1.")
