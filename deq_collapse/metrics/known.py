"""What is known when the formulas of `table.py` are applied, and what therefore can be given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from deq_collapse.metrics.geometry import Geometry, seli
from deq_collapse.metrics.statistics import ClassStatistics

Need = Literal["scatter", "classifier", "samples", "minority", "minority_pair"]


@dataclass(frozen=True)
class Known:
    """Everything known at compute time; K' of the K classes have samples.

    Attributes:
        stats: statistics of all classes.
        classifier: (K, d) all classifier rows, or None.
        majority: indices of the majority classes, or None.
        class_counts: (K,) counts that set the SELI target; None for those of `stats`.
        disagreement: gives the share of samples where classifier and nearest class mean differ.

    """

    stats: ClassStatistics
    classifier: Tensor | None
    majority: Sequence[int] | None
    class_counts: Sequence[int] | None
    disagreement: Callable[[], Tensor]

    @property
    def given(self) -> set[Need]:
        """The needs of formulas that are met."""
        given: set[Need] = {"scatter", "samples"}
        if self.classifier is not None:
            given.add("classifier")
        minority = self.minority[self.stats.present]
        if bool(minority.any()) and not bool(minority.all()):
            given.add("minority")
            if int(minority.sum()) > 1:
                given.add("minority_pair")
        return given

    @property
    def means(self) -> Tensor:
        """(K', d) centred class means."""
        return self.stats.centred

    @property
    def rows(self) -> Tensor:
        """(K, d) all classifier rows.

        Raises:
            ValueError: if there is no classifier.

        """
        if self.classifier is None:
            raise ValueError("this value needs a classifier, and no weight was given")
        return self.classifier

    @property
    def weight(self) -> Tensor:
        """(K', d) classifier rows of the classes that have samples."""
        return self.rows[self.stats.present]

    @property
    def minority(self) -> Tensor:
        """(K,) bool; all False if nobody said which classes are in the majority."""
        minority = torch.full_like(self.stats.present, self.majority is not None)
        minority[list(self.majority or ())] = False
        return minority

    @property
    def seli(self) -> Geometry:
        """SELI target of the class counts, (K', K')."""
        counts = (
            self.stats.counts
            if self.class_counts is None
            else self.stats.counts.new_tensor(self.class_counts)
        )
        return seli(counts[self.stats.present].tolist())
