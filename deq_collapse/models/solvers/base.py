"""The base of solvers: small objects that solve ``x = f(x)`` for a batch of samples."""

from abc import ABC, abstractmethod
from typing import Unpack

from torch import Tensor

from deq_collapse.errors import UserError
from deq_collapse.models.solvers.loop import Function, Options, Result


class Solver(ABC):
    """Base of every solver; a frozen dataclass of its settings, so that its ``repr`` lists all of them."""

    @abstractmethod
    def __call__(self, func: Function, x0: Tensor, **options: Unpack[Options]) -> Result:
        """Solves ``x = func(x)``, see :func:`~deq_collapse.models.solvers.loop.solve`.

        Args:
            func: the map; its value for a sample must depend on that sample alone.
            x0: start, shape ``(N, ...)``.
            options: ``max_iter``, ``tol`` and the other options that every solver takes.

        Returns:
            What :func:`~deq_collapse.models.solvers.loop.solve` returns: the solution, the states that
            ``indexing`` asks for, and torchdeq's statistics with those per sample.
        """

    def check(self) -> None:  # noqa: B027 - user-defined ones may have none
        """Refuses settings out of range. An equilibrium calls it, not the constructor, where jsonargparse
        would mistake the error for a wrong type.

        Raises:
            UserError: for such a setting.
        """


def check_window(window: int) -> None:
    """Refuses an empty memory.

    Raises:
        UserError: unless ``window`` is at least 1.
    """
    if window < 1:
        raise UserError(f"window is {window}, but a solver remembers at least 1 evaluation.")


def check_damping(damping: float) -> None:
    """Refuses a damping that allows no step, or none towards ``f(x)``.

    Raises:
        UserError: unless ``damping`` is at least 0 and below 1.
    """
    if not 0 <= damping < 1:
        raise UserError(f"damping is {damping}, but it is at least 0 (no damping) and below 1.")
