"""The effect of one change, everything else equal: two labels of one axis of a study, compared seed by seed.

A study file names its contrasts (``contrasts: {equilibrium: {refinement: [tied, equilibrium]}}``). Contrasts
of its refinement and of its family together separate the effect of a DEQ into the number of times a block is
applied, whether to the fixed point, the bound on its weights, and its normalisation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from deq_collapse.analysis.curves import ACCURACY, COLLAPSE, MINORITY
from deq_collapse.analysis.equal_loss import compared_at_loss
from deq_collapse.analysis.measures import Measure, logged, minority_accuracy
from deq_collapse.analysis.pairing import LEVEL, Comparison, holm, pool
from deq_collapse.analysis.settings import compared
from deq_collapse.runs.record import Run
from deq_collapse.runs.setting import axes_in_words
from deq_collapse.runs.study import Contrast, Study

EFFECTS = (
    minority_accuracy("minority accuracy"),
    logged("test", "accuracy", "accuracy", "share"),
    logged("train", "nc1", "NC1", "factor"),
    logged("train", "nc2_etf_means", "NC2"),
    logged("train", "nc3", "NC3"),
    logged("train", "loss", "training loss", "factor"),
)
"""The measures whose effects are reported; NC1 to NC3 and the loss are of the training split."""
AT_EQUAL_LOSS = (MINORITY, ACCURACY, *COLLAPSE)
"""Those whose effects are reported at equal training loss, too."""
Compare = Callable[[Sequence[Run], Sequence[Run], Measure], Comparison]


@dataclass(frozen=True)
class Effect:
    """The effect of a contrast on one measure.

    Attributes:
        place: the labels that both sides share, in words; for a pooled effect, the number of places.
        imbalance: the part of `place` that is the imbalance; effects are pooled within it.
        comparison: of the runs that are `fair`, paired by seed.
        adjusted: p value after Holm's correction over the effects on one measure in one table.
    """

    contrast: Contrast
    place: str
    imbalance: str
    measure: Measure
    comparison: Comparison
    adjusted: float = math.nan

    @property
    def significant(self) -> bool:
        """After correction."""
        return self.adjusted < LEVEL


@dataclass(frozen=True)
class EffectRow:
    """One contrast at one place, or pooled over places, measure by measure."""

    contrast: Contrast
    place: str
    pooled: bool
    effects: tuple[Effect, ...]


@dataclass(frozen=True)
class EffectTable:
    """The effects of all contrasts in one imbalance of one data set: a row for every place, followed by their
    mean. The p values of one measure are adjusted together.
    """

    imbalance: str
    measures: tuple[Measure, ...]
    rows: tuple[EffectRow, ...]


def effect_tables(study: Study) -> list[EffectTable]:
    """A table for every imbalance in which some contrast of the study has both sides: the effects at the end
    of training.
    """
    return _tables(study, EFFECTS, compared)


def equal_loss_effects(study: Study) -> list[EffectTable]:
    """The same at equal training loss: what a change adds beyond how far it lets a network train."""
    return _tables(study, AT_EQUAL_LOSS, compared_at_loss)


def _tables(study: Study, measures: Sequence[Measure], compare: Compare) -> list[EffectTable]:
    found = [
        effect for contrast in study.contrasts for effect in _effects(study, contrast, measures, compare)
    ]
    imbalances = dict.fromkeys(effect.imbalance for effect in found)
    return [_table(imbalance, measures, found) for imbalance in imbalances]


def sides(study: Study, contrast: Contrast) -> Iterator[tuple[str, str, list[Run], list[Run]]]:
    """Every place where a contrast has both sides: its imbalance, the place in words (see `Effect`), and the
    runs before and after the change.
    """
    found: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for run in study.runs:
        label = run.axes.get(contrast.axis)
        if label in (contrast.before, contrast.after):
            rest = {axis: value for axis, value in run.words.items() if axis not in (contrast.axis, "seed")}
            found.setdefault(axes_in_words(rest), {}).setdefault(label, []).append(run)
    for (imbalance, place), runs in found.items():
        if len(runs) == 2:
            yield imbalance, place, runs[contrast.before], runs[contrast.after]


def _effects(study: Study, contrast: Contrast, measures: Sequence[Measure], compare: Compare) -> list[Effect]:
    """One effect for every place and measure that has a value."""
    return [
        Effect(contrast, place, imbalance, measure, comparison)
        for imbalance, place, before, after in sides(study, contrast)
        for measure in measures
        if (comparison := compare(before, after, measure)).n
    ]


def _table(imbalance: str, measures: Sequence[Measure], found: Sequence[Effect]) -> EffectTable:
    mine = [effect for effect in found if effect.imbalance == imbalance]
    measures = tuple(m for m in measures if any(effect.measure is m for effect in mine))
    rows = [row for contrast in dict.fromkeys(e.contrast for e in mine) for row in _rows(contrast, mine)]
    adjusted: dict[int, float] = {}
    for measure in measures:
        column = [effect for row in rows for effect in row.effects if effect.measure is measure]
        adjusted |= dict(zip(map(id, column), holm([effect.comparison.p for effect in column]), strict=True))
    corrected = tuple(
        replace(row, effects=tuple(replace(effect, adjusted=adjusted[id(effect)]) for effect in row.effects))
        for row in rows
    )
    return EffectTable(imbalance, measures, corrected)


def _rows(contrast: Contrast, effects: Sequence[Effect]) -> list[EffectRow]:
    """The places of one contrast, and, for measures that have pairs in all of them, their mean if there are
    several.
    """
    mine = [effect for effect in effects if effect.contrast == contrast]
    places = list(dict.fromkeys(effect.place for effect in mine))
    rows = [EffectRow(contrast, place, False, tuple(e for e in mine if e.place == place)) for place in places]
    if len(places) > 1:
        words = f"mean of {len(places)}"
        counts = Counter(effect.measure for effect in mine)
        measures = [measure for measure, count in counts.items() if count == len(places)]
        pooled = tuple(
            replace(
                mine[0],
                place=words,
                measure=m,
                comparison=pool([e.comparison for e in mine if e.measure is m]),
            )
            for m in measures
        )
        if pooled:
            rows.append(EffectRow(contrast, words, True, pooled))
    return rows
