"""Class sizes that decrease from the first class to the last."""

from collections.abc import Sequence
from dataclasses import dataclass

from deq_collapse.data.imbalance import Imbalance, checked_ratio, divided
from deq_collapse.errors import UserError


@dataclass(frozen=True)
class LongTailed(Imbalance):
    """Exponentially decreasing class sizes: class c of K keeps int(n_max * ratio^(-c / (K - 1))) images.

    The long tail of LDAM (Cao et al. 2019, arXiv 1906.07413).

    Args:
        ratio: R >= 1, images of the first class over images of the last.
        n_max: images of the first class; None takes what the smallest class has.
    """

    ratio: float
    n_max: int | None = None

    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """int(n_max * ratio^(-c / (K - 1))) for class c."""
        last = max(len(available) - 1, 1)
        divisors = [checked_ratio(self.ratio) ** (c / last) for c in range(len(available))]
        return divided(divisors, self.n_max, available)


@dataclass(frozen=True)
class ParetoTailed(Imbalance):
    """Class sizes at evenly spaced quantiles of a Pareto distribution, cut off at n_max and n_max / ratio.

    Class c of K keeps int(n_max * (1 + c (ratio^alpha - 1) / (K - 1))^(-1 / alpha)) images: the inverse of
    the distribution function of a bounded Pareto distribution of shape alpha at 1 - c / (K - 1). The head is
    shorter and the tail longer than with `LongTailed` of the same ratio, which is the limit as alpha goes to
    0; alpha 1 is Zipf's law.

    Args:
        ratio: R >= 1, images of the first class over images of the last.
        alpha: shape, above 0; the larger alpha, the fewer classes are large.
        n_max: images of the first class; None takes what the smallest class has.
    """

    ratio: float
    alpha: float = 1.0
    n_max: int | None = None

    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """The formula above, for class c."""
        if not 0 < self.alpha < float("inf"):
            raise UserError(f"alpha is {self.alpha:g}, but the shape of a Pareto distribution is above 0")
        last = max(len(available) - 1, 1)
        rise = checked_ratio(self.ratio) ** self.alpha - 1
        divisors = [((last + c * rise) / last) ** (1 / self.alpha) for c in range(len(available))]
        if len(divisors) > 1:
            divisors[-1] = self.ratio  # which rounding of the two powers would miss
        return divided(divisors, self.n_max, available)
