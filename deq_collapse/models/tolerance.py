"""When a solver stops."""

from dataclasses import dataclass

from deq_collapse.errors import UserError


@dataclass(frozen=True)
class Tolerance:
    """A stopping rule: a sample stops at a relative residual, and all stop at a number of evaluations.

    Args:
        relative: a sample is done when ``||f(z) - z|| / ||f(z)||`` is at most this, above 0.
        max_iter: largest number of evaluations, at least 1; ``None`` takes the equilibrium's own.
    """

    relative: float
    max_iter: int | None = None

    def check(self) -> None:
        """Refuses numbers out of range, see :class:`~deq_collapse.models.solvers.base.Solver`.

        Raises:
            UserError: for such a number.
        """
        if not self.relative > 0:
            raise UserError(f"the tolerance is {self.relative}, but a tolerance is above 0.")
        if self.max_iter is not None and self.max_iter < 1:
            raise UserError(f"max_iter is {self.max_iter}, but a solver needs at least 1 evaluation.")

    @classmethod
    def of(cls, given: "float | Tolerance", max_iter: int) -> "Tolerance":
        """The given rule, or the one of that relative residual, with ``max_iter`` if it has none.

        Raises:
            UserError: for a number out of range.
        """
        rule = given if isinstance(given, Tolerance) else cls(given)
        rule = rule if rule.max_iter is not None else cls(rule.relative, max_iter)
        rule.check()
        return rule
