"""How many training images each class keeps, and which ones.

The counts follow LDAM (Cao et al. 2019, arXiv 1906.07413, `imbalance_cifar.py` of its authors' code).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deq_collapse.data.draw import Purpose, keys
from deq_collapse.errors import UserError


class Imbalance(ABC):
    """A rule from the images available to the images kept per class."""

    @abstractmethod
    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """Images kept per class, given the images `available` per class; both of length K.

        Raises:
            UserError: where the rule's arguments do not fit these classes.
        """

    def majority(self, num_classes: int) -> tuple[int, ...] | None:
        """The majority classes, where the rule knows majority and minority; else None."""
        return None


@dataclass(frozen=True)
class Balanced(Imbalance):
    """The same number of images in every class.

    Args:
        n_max: images per class; None takes what the smallest class has.
    """

    n_max: int | None = None

    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """`n_max` for every class."""
        return _kept([1.0] * len(available), self.n_max, available)


@dataclass(frozen=True)
class Step(Imbalance):
    """Two sizes of class: the first `num_majority` classes keep n_max images, the others int(n_max / ratio).

    Args:
        num_majority: K_A, in 1..K-1.
        ratio: R >= 1, images of a majority class over images of a minority class.
        n_max: images per majority class; None takes what the smallest class has.
    """

    num_majority: int
    ratio: float
    n_max: int | None = None

    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """`n_max` for each majority class, int(n_max / ratio) for each minority class."""
        majority = self.majority(len(available))
        return _kept(
            [1.0 if c in majority else self.ratio for c in range(len(available))], self.n_max, available
        )

    def majority(self, num_classes: int) -> tuple[int, ...]:
        """The first `num_majority` classes."""
        if not 1 <= self.num_majority < num_classes:
            raise UserError(
                f"num_majority (K_A) is {self.num_majority}, but of {num_classes} classes"
                f" 1..{num_classes - 1} can be the majority"
            )
        return tuple(range(self.num_majority))


@dataclass(frozen=True)
class LongTailed(Imbalance):
    """Exponentially falling class sizes: class c of K keeps int(n_max * ratio^(-c / (K - 1))) images.

    Args:
        ratio: R >= 1, images of the first class over images of the last.
        n_max: images of the first class; None takes what the smallest class has.
    """

    ratio: float
    n_max: int | None = None

    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """int(n_max * ratio^(-c / (K - 1))) for class c."""
        last = max(len(available) - 1, 1)
        divisors = [_checked_ratio(self.ratio) ** (c / last) for c in range(len(available))]
        return _kept(divisors, self.n_max, available)


def select(labels: Tensor, counts: Sequence[int], seed: int, purpose: Purpose = Purpose.SELECTION) -> Tensor:
    """Choose counts[c] images of every class c, by the seed alone.

    A smaller count keeps a subset of what a larger count of the same seed keeps.

    Args:
        labels: int64 (N,), in 0..K-1.
        counts: images to keep per class, length K; no class has fewer.
        seed: not negative.
        purpose: what the draw is for; draws for different purposes are independent.

    Returns:
        Indices into `labels`, ascending, int64 (sum(counts),).
    """
    random = keys(len(labels), purpose, seed)
    kept = []
    for label, count in enumerate(counts):
        members = (labels == label).nonzero().squeeze(1)
        kept.append(members[random[members].argsort(stable=True)[:count]])
    return torch.cat(kept).sort().values


def _checked_ratio(ratio: float) -> float:
    if not ratio >= 1:  # also refuses nan
        raise UserError(
            f"the imbalance ratio R is {ratio:g}, but R is the largest class over the smallest: R >= 1"
        )
    return ratio


def _kept(divisors: Sequence[float], n_max: int | None, available: Sequence[int]) -> tuple[int, ...]:
    """int(n_max / divisor) per class, refused where a class would be empty or has too few images."""
    largest = min(available) if n_max is None else n_max
    if largest < 1:
        raise UserError(f"n_max is {largest}, but every class keeps at least one image: n_max >= 1")
    # Dividing, where LDAM multiplies by a power of 1/R: exact when R divides n_max.
    counts = tuple(int(largest / _checked_ratio(divisor)) for divisor in divisors)
    for c, (count, limit) in enumerate(zip(counts, available, strict=True)):
        if count < 1:
            raise UserError(
                f"the imbalance ratio R = {max(divisors):g} leaves no image of class {c}, as the largest"
                f" class has {largest}: the largest R allowed is {largest}"
            )
        if count > limit:
            raise UserError(
                f"class {c} would keep {count} images, but only {limit} are available: lower n_max"
            )
    return counts
