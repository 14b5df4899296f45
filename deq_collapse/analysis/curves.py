"""Measures that are compared in the midst of training: their values are read from a run's curves."""

from __future__ import annotations

import pandas as pd

from deq_collapse.analysis.measures import Kind, Measure
from deq_collapse.runs.record import EMPTY, Run, Split

HELD_OUT = {
    "held_out_accuracy_minority": ("accuracy_minority", "accuracy_few"),
    "held_out_accuracy": ("accuracy",),
}
"""Measures of the split that is measured beside the training split: a run's is the first metric it has."""


def _measured(key: str, title: str, kind: Kind = "plain") -> Measure:
    """A measure without a final value, see `curve`."""
    return Measure(key, title, kind, lambda run: None, split="validation" if key in HELD_OUT else "train")


MINORITY = _measured("held_out_accuracy_minority", "minority accuracy", "share")
ACCURACY = _measured("held_out_accuracy", "held-out accuracy", "share")
COLLAPSE = (
    _measured("train_nc1", "NC1", "factor"),
    _measured("train_nc2_etf_means", "NC2"),
    _measured("train_nc3", "NC3"),
)
LOSS = _measured("train_loss", "training loss", "factor")


def split_of(run: Run, measure: Measure) -> Split:
    """The split of a run on which a measure of this module is taken."""
    return run.held_out if measure.key in HELD_OUT else "train"


def curve(run: Run, measure: Measure) -> pd.Series[float]:
    """The values of a measure of this module by completed epochs; may be empty."""
    metrics = HELD_OUT.get(measure.key, (measure.key.removeprefix("train_"),))
    curves = (run.curve(split_of(run, measure), metric) for metric in metrics)
    return next((values for values in curves if len(values)), EMPTY)
