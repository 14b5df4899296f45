"""Two networks compared at equal training loss, not at equal epochs: at any epoch, the one that trains faster
has collapsed further, which says nothing about the geometry it prefers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from deq_collapse.analysis.measures import Family, Measure
from deq_collapse.analysis.pairing import compare
from deq_collapse.analysis.settings import Setting, Slot, fair, settings
from deq_collapse.analysis.tables import Entry, Line, Table, adjusted_lines
from deq_collapse.runs.record import Run, Split
from deq_collapse.runs.setting import short
from deq_collapse.runs.study import Study

MEASURES = (
    Measure("train_nc1", "NC1", "factor", lambda run: run.train.get("nc1")),
    Measure("train_nc2_etf_means", "NC2", "plain", lambda run: run.train.get("nc2_etf_means")),
    Measure("train_nc3", "NC3", "plain", lambda run: run.train.get("nc3")),
    Measure("held_out_accuracy", "held-out accuracy", "share", lambda run: None),
)
TITLE = "At equal training loss"
NOTE = (
    "Each pair of runs is compared at the higher of their two final training losses, which both reached:"
    " the values of the one that went lower are those it had where it passed that loss, interpolated between"
    " measured epochs in the logarithm of the loss. NC1 to NC3 are of the training split; held-out accuracy"
    " is that of the images that were measured beside it."
)


def at_loss(run: Run, loss: float, split: str, metric: str) -> float | None:
    """The value of a metric when the training loss first was as low as `loss`; None if it never was, or if
    the metric was not measured then.
    """
    losses, values = run.curve("train", "loss"), run.curve(split, metric)
    epochs = [epoch for epoch in losses.index if epoch in values.index and losses[epoch] > 0]
    before = None
    for epoch in epochs:
        if losses[epoch] <= loss:
            if before is None or losses[epoch] == loss:
                return float(values[epoch])
            span = np.log([losses[before], losses[epoch], loss])
            share = (span[0] - span[2]) / (span[0] - span[1])
            return float(values[before] + share * (values[epoch] - values[before]))
        before = epoch
    return None


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
        if one in setting.slots
    ]
    lines = [line for line in lines if any(entry.comparison.n for entry in line.entries)]
    others = tuple(dict.fromkeys(line.refinement for line in lines))
    corrected, tests = adjusted_lines(lines)
    title = f"{TITLE}: {', '.join(map(short, others))} beside {short(one)}"
    family = Family(f"equal_loss_{one}", title, NOTE, MEASURES)
    return Table(family, one, others, MEASURES, corrected, tests)


def _entry(measure: Measure, setting: Setting, one: str, two: str) -> Entry:
    """Compares runs with the same seed at the higher of their two final losses."""
    first: dict[str, float | None] = {}
    second: dict[str, float | None] = {}
    held_out = measure.key == "held_out_accuracy"
    metric = "accuracy" if held_out else measure.key.removeprefix("train_")
    slots = [setting.slots[name] for name in (one, two)]
    split = slots[0].runs[0].held_out if held_out else measure.split
    for pair in _pairs(slots[0], slots[1], split):
        finals = [run.train.get("loss", math.nan) for run in pair]
        for side, run in zip((first, second), pair, strict=True):
            side[run.axes.get("seed", run.name)] = at_loss(run, max(finals), split, metric)
    return Entry(measure, first, second, compare(first, second, measure.kind == "factor"), math.nan)


def _pairs(one: Slot, two: Slot, split: Split) -> list[tuple[Run, Run]]:
    first, second = fair(one.runs, two.runs, split)
    others = {run.axes.get("seed"): run for run in second}
    return [(run, others[run.axes.get("seed")]) for run in first if run.axes.get("seed") in others]
