"""The number of seeds that a paired t test would need, from its power at the observed effect and spread."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special, stats

from deq_collapse.analysis.pairing import FEWEST, LEVEL

POWER = 0.8
MOST = 1000
"""Largest number of pairs considered."""
GRID = 401
"""Points of the integral over standard deviations."""


def power(effect: float, pairs: NDArray[np.int64], level: float = LEVEL) -> NDArray[np.float64]:
    """Probability that a two-sided paired t test rejects (Cohen, "Statistical Power Analysis for the
    Behavioral Sciences", 1988, chapter 2).

    Args:
        effect: true mean difference over the true standard deviation of differences.
        pairs: numbers of pairs, each at least 2.
        level: of the test, uncorrected.
    """
    freedom, shift = pairs[:, None] - 1, abs(effect) * np.sqrt(pairs[:, None])
    critical = stats.t.ppf(1 - level / 2, freedom)
    # Over the distribution of the standard deviation: scipy's non-central t is nan at ordinary arguments.
    middle = np.sqrt(freedom)
    low, high = np.maximum(middle - 6, 0), middle + 6  # standard deviations of at most 0.71 lie between
    chi = low + (high - low) * np.linspace(0, 1, GRID)
    reached = critical * chi / middle
    rejects = special.ndtr(shift - reached) + special.ndtr(-shift - reached)
    return np.asarray(integrate.simpson(stats.chi.pdf(chi, freedom) * rejects, x=chi))


def pairs_needed(differences: Collection[float], level: float = LEVEL) -> int | None:
    """The smallest number of pairs at which the test has a power of 80%, if the observed mean difference and
    standard deviation were the true ones; both are estimates, so with few pairs this is rough.

    Returns:
        At least `FEWEST`; ``None`` if there are fewer than two differences, if they do not vary, or if more
        than `MOST` would be needed.

    >>> pairs_needed([1.0, 2.0, 3.0])
    5
    >>> pairs_needed([-1.0, 1.0]) is None
    True
    """
    values = np.array(list(differences), dtype=float)
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    values /= np.abs(values).max()  # squares of tiny differences would underflow
    pairs = np.arange(FEWEST, MOST + 1)
    enough = power(float(values.mean() / values.std(ddof=1)), pairs, level) >= POWER
    return int(pairs[enough.argmax()]) if enough.any() else None
