"""The imbalance of a run's classes, and the name of its kind."""

from __future__ import annotations

from deq_collapse.runs.record import Run

NEAR = 1.25
"""Ratios closer than this factor count as one R: counts are whole numbers, so a ratio of 10 may become
10.7.
"""


UNEVEN = 2.0
"""A natural data set whose classes differ by less than this factor does not count as a long tail."""


def imbalance_ratio(run: Run) -> float:
    """R: the largest number of training images of a class over the smallest."""
    return max(run.class_counts) / min(run.class_counts)


def is_balanced(run: Run) -> bool:
    """Whether classes have equally many training images, up to rounding; for a data set taken as it is,
    whether no class has twice as many as another.
    """
    return not run.majority and imbalance_ratio(run) < (UNEVEN if "natural" in run.saved.imbalance else NEAR)


def imbalance_kind(run: Run) -> str:
    """`step` if the run has majority classes, otherwise `balanced` or `long-tailed` by its counts."""
    if run.majority:
        return "step"
    return "balanced" if is_balanced(run) else "long-tailed"
