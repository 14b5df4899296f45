"""How many training images each class keeps, and which ones."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deq_collapse.data.draw import Purpose, keys
from deq_collapse.data.source import Source
from deq_collapse.errors import UserError


class Imbalance(ABC):
    """A rule that maps the images available per class to the images kept."""

    @abstractmethod
    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """Images kept per class, given the images `available` per class; both of length K.

        Raises:
            UserError: if the rule's arguments do not fit these classes.
        """

    def majority(self, num_classes: int) -> tuple[int, ...] | None:
        """The majority classes, ascending, if the rule distinguishes majority and minority; else None."""
        return None

    def indices(self, source: Source, seed: int) -> Tensor:
        """The training images kept: ascending positions in the source's training split, int64 (sum n_c,).

        Raises:
            UserError: if the rule does not fit the source.
        """
        labels = source.train.labels
        return select(labels, self.counts(labels.bincount(minlength=source.num_classes).tolist()), seed)


@dataclass(frozen=True)
class Natural(Imbalance):
    """Every class as in the data set.

    Args:
        n_max: the most images per class; None is no limit.
    """

    n_max: int | None = None

    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """All images, or `n_max` if that is less."""
        return fitting(_capped(available, self.n_max), available)


@dataclass(frozen=True)
class Counts(Imbalance):
    """Class sizes as listed.

    Args:
        images: per class, K numbers of at least 1.
        n_max: the most images per class; None is no limit.
    """

    images: list[int]
    n_max: int | None = None

    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """The listed numbers, or `n_max` if that is less."""
        if len(self.images) != len(available):
            raise UserError(
                f"{len(self.images)} class sizes are listed, but the data set has {len(available)} classes"
            )
        return fitting(_capped(self.images, self.n_max), available)


@dataclass(frozen=True)
class Balanced(Imbalance):
    """The same number of images in every class.

    Args:
        n_max: images per class; None takes what the smallest class has.
    """

    n_max: int | None = None

    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """`n_max` for every class."""
        return divided([1.0] * len(available), self.n_max, available)


def select(labels: Tensor, counts: Sequence[int], seed: int, purpose: Purpose = Purpose.SELECTION) -> Tensor:
    """Choose counts[c] images of every class c, determined by the seed alone.

    A smaller count keeps a subset of the images that a larger count keeps with the same seed.

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


def hold_out(labels: Tensor, count: int, seed: int) -> Tensor:
    """Choose `count` images of every class from the other end of the order used by `select`.

    They are thus the same whatever is selected with the seed, as long as every class has enough images for
    both.

    Args:
        labels: int64 (N,), in 0..K-1.
        count: images per class, at least 1; no class has fewer.
        seed: not negative.

    Returns:
        Indices into `labels`, ascending, int64 (K count,).
    """
    random = keys(len(labels), Purpose.SELECTION, seed)
    order = random.argsort(descending=True, stable=True)
    by_class = [order[labels[order] == label][:count] for label in range(int(labels.max()) + 1)]
    return torch.cat(by_class).sort().values


def checked_ratio(ratio: float) -> float:
    """The imbalance ratio R.

    Raises:
        UserError: if it is below 1.
    """
    if not ratio >= 1:  # also refuses nan
        raise UserError(
            f"the imbalance ratio R is {ratio:g}, but R is the largest class over the smallest: R >= 1"
        )
    return ratio


def divided(divisors: Sequence[float], n_max: int | None, available: Sequence[int]) -> tuple[int, ...]:
    """int(n_max / divisor) images per class, as LDAM rounds (Cao et al. 2019, arXiv 1906.07413,
    `imbalance_cifar.py` of its authors' code).

    Args:
        divisors: per class, 1 for the largest.
        n_max: images of the largest class; None takes what the smallest class has.
        available: images per class.

    Raises:
        UserError: if a class would be empty or has too few images.
    """
    largest = min(available) if n_max is None else _checked_cap(n_max)
    # Division, not multiplication by a power of 1/R as in LDAM: it is exact when R divides n_max.
    counts = [int(largest / checked_ratio(divisor)) for divisor in divisors]
    if 0 in counts:
        raise UserError(
            f"the imbalance ratio R = {max(divisors):g} leaves no image of class {counts.index(0)}, as the"
            f" largest class has {largest}: the largest R allowed is {largest}"
        )
    return fitting(counts, available)


def fitting(counts: Sequence[int], available: Sequence[int]) -> tuple[int, ...]:
    """The counts, if every class keeps at least one image and has as many as requested.

    Raises:
        UserError: otherwise, naming the first such class.
    """
    for c, (count, limit) in enumerate(zip(counts, available, strict=True)):
        if count < 1:
            raise UserError(f"class {c} would keep {count} images, but every class keeps at least one")
        if count > limit:
            raise UserError(
                f"class {c} would keep {count} images, but only {limit} are available: lower n_max"
            )
    return tuple(counts)


def _capped(counts: Sequence[int], n_max: int | None) -> Sequence[int]:
    return counts if n_max is None else [min(count, _checked_cap(n_max)) for count in counts]


def _checked_cap(n_max: int) -> int:
    if n_max < 1:
        raise UserError(f"n_max is {n_max}, but every class keeps at least one image: n_max >= 1")
    return n_max
