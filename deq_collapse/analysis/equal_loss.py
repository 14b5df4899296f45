"""Two networks compared at equal training loss, not at equal epochs: at any epoch, the one that trains faster
has collapsed further, which says nothing about the geometry it prefers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deq_collapse.analysis.curves import ACCURACY, COLLAPSE, curve, split_of
from deq_collapse.analysis.measures import Family, Measure
from deq_collapse.analysis.pairing import Comparison, compare
from deq_collapse.analysis.settings import Setting, fair, seeded, settings
from deq_collapse.analysis.tables import Entry, Line, Table, adjusted_lines
from deq_collapse.runs.record import Run
from deq_collapse.runs.setting import short
from deq_collapse.runs.study import Study

MEASURES = (*COLLAPSE, ACCURACY)
NEAR = 1.25
"""The largest factor between a training loss and the nearer one of the measured epochs around it."""
TITLE = "At equal training loss"
NOTE = (
    "Each pair of runs is compared at the higher of their two final training losses, which both reached:"
    " one with its final values, the one that went lower with those it had where it passed that loss,"
    " interpolated between measured epochs in the logarithm of the loss, and NC1 in its own as well; there is"
    f" none where no epoch measured around it has a loss within a factor of {NEAR}. It is a value of"
    " mid-training, at a larger rate. NC1 to NC3 are of the training split; held-out accuracy is that of the"
    " images that were measured beside it."
)


def at_loss(run: Run, loss: float, measure: Measure) -> float | None:
    """The value of a measure when the training loss first was as low as `loss`; None if it never was, or if
    the measure was not taken then.

    Between two measured epochs it is interpolated in the logarithm of the loss; what is compared as a factor,
    in its own logarithm too, which is exact where it is a power of the loss. None, too, where neither of the
    two has a loss that is `NEAR`: the way between them may be another.
    """
    factor = measure.kind == "factor"
    losses, values = _measured(run, measure)
    reached = np.flatnonzero(losses <= loss)
    if not len(reached):
        return None
    passing = slice(max(0, reached[0] - 1), reached[0] + 1)
    at, x, y = math.log(loss), np.log(losses[passing]), values[passing]
    if np.abs(x - at).min() > math.log(NEAR):
        return None
    value = np.interp(at, x[::-1], (np.log(y) if factor else y)[::-1])  # by growing loss, as interp wants
    return float(np.exp(value) if factor else value)


def _measured(run: Run, measure: Measure) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Training losses and values of a measure in the epochs that have both, where their logarithms exist."""
    curves = run.curve("train", "loss").align(curve(run, measure), join="inner")
    losses, values = (values.to_numpy() for values in curves)
    usable = (losses > 0) & (values > (0 if measure.kind == "factor" else -math.inf))
    return losses[usable], values[usable]


def _final(run: Run, measure: Measure) -> float | None:
    """The last value of a measure; None without one."""
    _, values = _measured(run, measure)
    return float(values[-1]) if len(values) else None


def compared_at_loss(one: Sequence[Run], two: Sequence[Run], measure: Measure) -> Comparison:
    """The effect of the second side over the first, from the seeds whose runs are `fair`, each pair at the
    higher of its two final training losses.
    """
    return compare(*_sides(one, two, measure), ratio=measure.kind == "factor")


def _sides(
    one: Sequence[Run], two: Sequence[Run], measure: Measure
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """The values of both sides by seed. The run that sets the loss has its final value, even if its loss was
    as low before.
    """
    first, second = map(seeded, fair(one, two, split_of(one[0], measure)))
    sides: tuple[dict[str, float | None], dict[str, float | None]] = ({}, {})
    for seed, run in first.items():
        if seed in second:
            pair = run, second[seed]
            losses = [each.train.get("loss", math.nan) for each in pair]
            highest = max(losses)
            for side, each, own in zip(sides, pair, losses, strict=True):
                side[seed] = _final(each, measure) if own == highest else at_loss(each, highest, measure)
    return sides


def equal_loss_tables(study: Study) -> list[Table]:
    """A table for each explicit refinement that has a pair with a DEQ: each DEQ beside it in each setting."""
    every = settings(study)
    implicit = {name for setting in every for name in setting.implicit}
    names = dict.fromkeys(name for setting in every for name in setting.slots if name not in implicit)
    return [table for name in names if (table := _table(every, name)).lines]


def _table(every: Sequence[Setting], one: str) -> Table:
    lines = [
        Line(setting, one, two, tuple(_entry(measure, setting, one, two) for measure in MEASURES))
        for setting in every
        for two in setting.implicit
        if one in setting.slots and setting.slots[one].runs
    ]
    lines = [line for line in lines if any(entry.comparison.n for entry in line.entries)]
    others = tuple(dict.fromkeys(line.refinement for line in lines))
    corrected, tests = adjusted_lines(lines)
    title = f"{TITLE}: {', '.join(map(short, others))} beside {short(one)}"
    family = Family(f"equal_loss_{one}", title, NOTE, MEASURES)
    return Table(family, one, others, MEASURES, corrected, tests)


def _entry(measure: Measure, setting: Setting, one: str, two: str) -> Entry:
    first, second = _sides(setting.slots[one].runs, setting.slots[two].runs, measure)
    return Entry(measure, first, second, compare(first, second, measure.kind == "factor"), math.nan)
