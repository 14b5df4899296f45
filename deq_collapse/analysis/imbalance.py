"""How unequally large the classes of a run are, and what such a run is called."""

from __future__ import annotations

from deq_collapse.runs.record import Run

NEAR = 1.25
"""Ratios closer than this factor are one R: images are whole, so a ratio of 10 may come out as 10.7."""


UNEVEN = 2.0
"""A data set of one's own is no long tail because its classes differ by less than this factor."""


def imbalance_ratio(run: Run) -> float:
    """R: largest over smallest number of training images of a class."""
    return max(run.class_counts) / min(run.class_counts)


def is_balanced(run: Run) -> bool:
    """Whether classes have equally many training images, but for a remainder of the split; of a data set
    taken as it is, whether none has twice as many as another.
    """
    return not run.majority and imbalance_ratio(run) < (UNEVEN if "natural" in run.saved.imbalance else NEAR)


def imbalance_kind(run: Run) -> str:
    """`step` where the run has majority classes, `balanced` or else `long-tailed` by its counts."""
    if run.majority:
        return "step"
    return "balanced" if is_balanced(run) else "long-tailed"
