"""Two class sizes: majority and minority."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deq_collapse.data.draw import Purpose, permutation
from deq_collapse.data.imbalance import Imbalance, divided
from deq_collapse.errors import UserError


@dataclass(frozen=True)
class Step(Imbalance):
    """The majority classes keep n_max images each, the others int(n_max / ratio).

    Args:
        num_majority: K_A, in 1..K-1; None if `fraction` or a list of classes sets it.
        ratio: R >= 1, images of a majority class over images of a minority class.
        n_max: images per majority class; None takes what the smallest class has.
        fraction: K_A / K instead of `num_majority`; rounded to whole classes, halves up.
        which: the majority classes: the first, the last, a random choice by `seed`, or the listed classes.
        seed: of the random choice, not negative. The seed of the data changes with every run of a study; this
            one changes only if it is set.
    """

    num_majority: int | None = None
    ratio: float = 10.0
    n_max: int | None = None
    fraction: float | None = None
    which: Literal["first", "last", "random"] | list[int] = "first"
    seed: int = 0

    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """`n_max` for each majority class, int(n_max / ratio) for each minority class."""
        majority = self.majority(len(available))
        divisors = [1.0 if c in majority else self.ratio for c in range(len(available))]
        return divided(divisors, self.n_max, available)

    def majority(self, num_classes: int) -> tuple[int, ...]:
        """The majority classes, ascending."""
        size = self._size(num_classes)
        if not 1 <= size < num_classes:
            raise UserError(
                f"num_majority (K_A) is {size}, but of {num_classes} classes 1..{num_classes - 1} can be the"
                " majority"
            )
        if isinstance(self.which, list):
            return self._listed(self.which, num_classes)
        if self.which == "random":
            if self.seed < 0:
                raise UserError(f"the seed of the majority is {self.seed}, but a seed is not negative")
            return tuple(sorted(permutation(num_classes, Purpose.MAJORITY, self.seed)[:size].tolist()))
        return tuple(range(size) if self.which == "first" else range(num_classes - size, num_classes))

    def _size(self, num_classes: int) -> int:
        given = [self.num_majority, self.fraction, self.which if isinstance(self.which, list) else None]
        if sum(value is not None for value in given) != 1:
            raise UserError(
                f"num_majority is {given[0]}, fraction {given[1]} and the list of classes {given[2]}, but"
                " exactly one of them must set the majority"
            )
        if self.fraction is not None:
            if not 0 < self.fraction < 1:
                raise UserError(
                    f"fraction is {self.fraction:g}, but the majority is a part: above 0, below 1"
                )
            return math.floor(self.fraction * num_classes + 0.5)
        return len(self.which) if self.num_majority is None else self.num_majority

    def _listed(self, classes: list[int], num_classes: int) -> tuple[int, ...]:
        if len(set(classes)) < len(classes) or not set(classes) <= set(range(num_classes)):
            raise UserError(
                f"the majority classes are {classes}, but they are different classes of 0..{num_classes - 1}"
            )
        return tuple(sorted(classes))
