"""The effects of a study's contrasts epoch by epoch: when a lead begins, and whether it lasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deq_collapse.analysis.contrasts import sides
from deq_collapse.analysis.curves import ACCURACY, COLLAPSE, LOSS, MINORITY, curve, split_of
from deq_collapse.analysis.measures import Measure
from deq_collapse.analysis.pairing import Comparison, compare
from deq_collapse.analysis.settings import fair, seeded
from deq_collapse.runs.record import Run
from deq_collapse.runs.study import Contrast, Study

MEASURES = (MINORITY, ACCURACY, *COLLAPSE, LOSS)


@dataclass(frozen=True)
class EffectCurve:
    """The effect of a contrast on one measure at every epoch at which all of its runs were measured.

    Attributes:
        place, imbalance: as of an `Effect`.
        comparisons: by completed epochs, each of the same pairs. Their intervals hold one by one, and their
            p values are not corrected: an effect is tested at the end of training alone.
    """

    contrast: Contrast
    place: str
    imbalance: str
    measure: Measure
    comparisons: dict[int, Comparison]

    @property
    def n(self) -> int:
        """Number of pairs."""
        return next(iter(self.comparisons.values())).n


def effect_curves(study: Study) -> list[EffectCurve]:
    """One for every contrast, place and measure with two pairs or more, from the runs that are `fair`."""
    return [
        EffectCurve(contrast, place, imbalance, measure, comparisons)
        for contrast in study.contrasts
        for imbalance, place, before, after in sides(study, contrast)
        for measure in MEASURES
        if (comparisons := _compared(before, after, measure))
    ]


def _compared(before: Sequence[Run], after: Sequence[Run], measure: Measure) -> dict[int, Comparison]:
    """The comparison at every epoch at which all pairs have a value; empty for fewer than two pairs."""
    kept = fair(before, after, split_of(before[0], measure))
    one, two = ({seed: curve(run, measure) for seed, run in seeded(runs).items()} for runs in kept)
    pairs = [seed for seed in one if seed in two and len(one[seed]) and len(two[seed])]
    if len(pairs) < 2:
        return {}
    epochs = set.intersection(*(set(side[seed].index) for side in (one, two) for seed in pairs))
    found = {}
    for epoch in sorted(epochs):
        at = [{seed: float(side[seed][epoch]) for seed in pairs} for side in (one, two)]
        found[int(epoch)] = compare(at[0], at[1], ratio=measure.kind == "factor")
    return {epoch: comparison for epoch, comparison in found.items() if comparison.n == len(pairs)}
