"""Measures of a run in the tables, how their values are shown, and which of them share a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from deq_collapse.runs.record import Run, Split

Kind = Literal["share", "plain", "factor"]
"""A share is shown in per cent and compared in points; a plain value is compared directly; a measure that
spans decades is compared as a factor, by its logarithms.
"""


@dataclass(frozen=True)
class Measure:
    """One number of a run.

    Attributes:
        key: its name in files.
        title: its name in a table.
        kind: how it is shown and compared.
        value: reads it from a run; None if the run has none.
        absent: word for a run without a value, e.g. `never` for the terminal phase.
        split: the images on which it was measured.
    """

    key: str
    title: str
    kind: Kind
    value: Callable[[Run], float | None]
    absent: str = ""
    split: Split = "train"

    @property
    def heading(self) -> str:
        """Its title, with the unit of its values."""
        return f"{self.title}, %" if self.kind == "share" else self.title


@dataclass(frozen=True)
class Family:
    """The measures of one table; their tests form one family for the correction of p values.

    Attributes:
        name: of its files.
        title: its heading.
        note: what its columns mean.
        imbalance: the kind of its settings: `balanced`, `step` or `long-tailed`; None for all.
    """

    name: str
    title: str
    note: str
    measures: tuple[Measure, ...]
    imbalance: str | None = None


def logged(split: Split, metric: str, title: str, kind: Kind = "plain") -> Measure:
    """The final value of a metric on a split: `train`, `validation` or `test`."""
    return Measure(f"{split}_{metric}", title, kind, lambda run: getattr(run, split).get(metric), split=split)


def minority_accuracy(title: str) -> Measure:
    """Test accuracy on minority classes; for a long tail, on the "few" classes."""
    return Measure(
        "test_accuracy_minority",
        title,
        "share",
        lambda run: run.test.get("accuracy_minority", run.test.get("accuracy_few")),
        split="test",
    )


def collapse(split: Split) -> tuple[Measure, ...]:
    """NC1 to NC4 on a split."""
    return (
        logged(split, "nc1", "NC1", "factor"),
        logged(split, "nc2_etf_means", "NC2"),
        logged(split, "nc3", "NC3"),
        logged(split, "nc4", "NC4", "share"),
    )


ACCURACY = (
    logged("test", "accuracy", "overall", "share"),
    logged("test", "balanced_accuracy", "balanced", "share"),
)
ACCURACY_NOTE = (
    "Accuracy on the test split after the last epoch, in per cent; differences in points. “Balanced” is"
    " the mean over classes, and is left out where the test split is balanced itself, for it is the"
    " overall accuracy then."
)

FAMILIES = (
    Family(
        "accuracy_balanced",
        "Test accuracy, balanced training data",
        ACCURACY_NOTE,
        (*ACCURACY, logged("train", "accuracy", "on training images", "share")),
        "balanced",
    ),
    Family(
        "accuracy_step",
        "Test accuracy, step imbalance",
        f"{ACCURACY_NOTE} Majority: the K_A classes that have R times the images of every other.",
        (
            *ACCURACY,
            logged("test", "accuracy_majority", "majority", "share"),
            logged("test", "accuracy_minority", "minority", "share"),
        ),
        "step",
    ),
    Family(
        "accuracy_long_tailed",
        "Test accuracy, long tails",
        f"{ACCURACY_NOTE} Many, medium and few: classes by their number of training images.",
        (
            *ACCURACY,
            *(logged("test", f"accuracy_{group}", group, "share") for group in ("many", "medium", "few")),
        ),
        "long-tailed",
    ),
    Family(
        "collapse_train",
        "Collapse on the training split",
        "NC1 is Tr(Σ_W Σ_B⁺)/K; NC2 is the distance of the class means’"
        " Gram matrix to that of the simplex ETF; NC3 the distance between classifier and class means,"
        " both normalised; NC4 the share of images, in per cent, that the classifier and the nearest class"
        " mean put into different classes. All are 0 at full collapse, and measured after the last epoch,"
        " in evaluation mode, on training images without augmentation.",
        collapse("train"),
    ),
    Family(
        "collapse_test",
        "Collapse on the test split",
        "The same measures of test images; the class means are those of the test split.",
        collapse("test"),
    ),
    Family(
        "minority",
        "Minority cosines",
        "Means over pairs of minority classes of the cosine between classifier rows, and between centred"
        " class means of the training split: 1 is minority collapse.",
        (
            logged("train", "minority_cos_weights_mean", "classifier rows"),
            logged("train", "minority_cos_means_mean", "class means"),
        ),
    ),
    Family(
        "seli",
        "Distance to SELI",
        "Distances of normalised Gram matrices on the training split, at class level, to the geometry of"
        " maximal margins for the run’s class counts, which for balanced data is the simplex ETF.",
        (
            logged("train", "seli_means", "class means"),
            logged("train", "seli_weights", "classifier rows"),
            logged("train", "seli_logits", "logits"),
        ),
    ),
    Family(
        "terminal",
        "Terminal phase and loss",
        "The terminal phase starts at its epoch, the first with training error 0; a run is collapsed from the"
        " first measured epoch after which it stays at or below the levels of the report’s rule. Only pairs"
        " that both got there are compared. The fall of NC1 is its first measured value on the training split"
        " over its last. Losses are of the run’s criterion, after the last epoch, in evaluation mode.",
        (
            Measure("terminal_epoch", "first epoch", "plain", lambda run: run.terminal_epoch, "never"),
            Measure("collapsed_epoch", "collapsed from", "plain", lambda run: run.collapsed_epoch, "never"),
            Measure("nc1_fall", "fall of NC1", "factor", lambda run: run.nc1_fall),
            logged("train", "loss", "training loss", "factor"),
            logged("test", "loss", "test loss", "factor"),
        ),
    ),
)
