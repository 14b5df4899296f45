"""Two refinements compared seed by seed: Student's paired t test and interval, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05
"""Level of every test; intervals cover 1 - LEVEL."""
FEWEST = 3
"""Pairs that a test takes. Two can differ by almost the same by chance, and would then decide a claim."""


@dataclass(frozen=True)
class Comparison:
    """The effect of one refinement over another, from the seeds that both have.

    Attributes:
        differences: other - baseline by seed; of logarithms if `ratio`.
        unpaired: seeds that have a value on one side only.
        ratio: whether effects are shown as factors, other / baseline.
        low, high: ends of the 95% confidence interval of the mean difference, assuming normal differences; on
            the scale of `differences`, nan if there is none.
        p: of Student's two-sided paired t test; nan if there is none.
        remark: why there is no test, and perhaps no interval; empty if there are both.
    """

    differences: dict[str, float]
    unpaired: tuple[str, ...]
    ratio: bool
    low: float
    high: float
    p: float
    remark: str

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.differences)

    @property
    def seeds(self) -> dict[str, str]:
        """Which seeds have a pair, and which have a value on one side only: columns of files."""
        return {"seeds": " ".join(self.differences), "seeds_without_partner": " ".join(self.unpaired)}

    @property
    def mean(self) -> float:
        """Mean difference, on the scale of `differences`; nan without pairs."""
        return math.fsum(self.differences.values()) / self.n if self.n else math.nan

    @property
    def effect(self) -> float:
        """The effect shown: the mean difference, or for a ratio the geometric mean of the factors."""
        return self.told(self.mean)

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of `effect`."""
        return self.told(self.low), self.told(self.high)

    def told(self, difference: float) -> float:
        """A difference on the scale shown."""
        return math.exp(difference) if self.ratio else difference


def compare(
    baseline: Mapping[str, float | None], other: Mapping[str, float | None], ratio: bool = False
) -> Comparison:
    """Pairs values by seed and compares them.

    Args:
        baseline: values by seed; None, non-finite and, for a ratio, non-positive values are ignored.
        other: the same for the other refinement.
        ratio: compare logarithms, for measures that span decades.

    >>> made = compare({"0": 1.0, "1": 2.0, "2": 3.0}, {"0": 2.0, "1": 4.0, "2": 3.5, "3": 9.0})
    >>> made.n, made.unpaired, round(made.effect, 4), round(made.p, 4)
    (3, ('3',), 1.1667, 0.1181)
    """
    values = [_usable(side, ratio) for side in (baseline, other)]
    seeds = [seed for seed in values[0] if seed in values[1]]
    unpaired = tuple(seed for seed in {**values[0], **values[1]} if seed not in seeds)
    differences = {seed: values[1][seed] - values[0][seed] for seed in seeds}
    size = max((abs(value) for side in values for value in side.values()), default=0.0)
    return _tested(differences, unpaired, ratio, size)


def pool(comparisons: Sequence[Comparison]) -> Comparison:
    """The mean over comparisons of one measure in several settings, averaged within each seed.

    A seed's runs share their draw of images, initial weights and order of batches, so settings of one seed
    are not independent: the seeds are the repetitions, and n is their number. Only seeds with a pair in every
    setting count; otherwise seeds would be means over different settings. Settings without any pair are
    skipped.
    """
    some = [comparison for comparison in comparisons if comparison.n]
    every = list(dict.fromkeys(seed for c in some for seed in c.differences))
    seeds = [seed for seed in every if all(seed in c.differences for c in some)]
    differences = {seed: math.fsum(c.differences[seed] for c in some) / len(some) for seed in seeds}
    size = max((abs(value) for c in some for value in c.differences.values()), default=0.0)
    return _tested(differences, tuple(s for s in every if s not in seeds), any(c.ratio for c in some), size)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of a family of tests (Holm 1979): if those below a level are called significant, the
    probability of any error in the family is at most that level, however the tests depend on each other.

    A nan is not a test: it stays nan and does not count in the family.

    >>> [round(p, 2) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = highest
    return adjusted


def _usable(side: Mapping[str, float | None], ratio: bool) -> dict[str, float]:
    """The values that can be compared; their logarithms for a ratio."""
    known = {seed: value for seed, value in side.items() if value is not None and math.isfinite(value)}
    return {seed: math.log(v) for seed, v in known.items() if v > 0} if ratio else known


def _tested(differences: dict[str, float], unpaired: tuple[str, ...], ratio: bool, size: float) -> Comparison:
    """`size` is the largest of the compared values: differences that agree up to its rounding are equal."""
    values = np.array(list(differences.values()))
    remark = ""
    if len(values) < 2:
        remark = "one pair, so no interval and no test" if len(values) else "no seed finished in both"
    elif np.ptp(values) <= 1e-12 * size:
        remark = f"all {len(values)} differences are equal, so no interval and no test"
    if remark:
        return Comparison(differences, unpaired, ratio, math.nan, math.nan, math.nan, remark)
    test = stats.ttest_1samp(values, 0.0)
    interval = test.confidence_interval(1 - LEVEL)
    p, remark = (float(test.pvalue), "") if len(values) >= FEWEST else (math.nan, "two pairs, so no test")
    return Comparison(differences, unpaired, ratio, float(interval.low), float(interval.high), p, remark)
