"""What is known when the formulas of `table.py` are applied, and what therefore can be given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from deq_collapse.metrics.statistics import ClassStatistics

Need = Literal["scatter", "classifier", "samples", "minority", "minority_pair", "outside"]


@dataclass(frozen=True)
class Known:
    """Everything known at compute time; K' of the K classes have samples.

    Attributes:
        stats: statistics of all classes.
        classifier: (K, d) all classifier rows, or None.
        majority: indices of the majority classes, or None.
        class_counts: (K,) counts that set the SELI and GOF targets; None for those of `stats`.
        outside: (d,) mean of out-of-distribution features; not finite if there are none.
        skipped: number of samples left out for non-finite features.
        buffers: whether samples are kept until their class is decided.
        tally: gives the counts of `functional.tally_decisions` over all ranks.

    """

    stats: ClassStatistics
    classifier: Tensor | None
    majority: Sequence[int] | None
    class_counts: Sequence[int] | None
    outside: Tensor
    skipped: Tensor
    buffers: bool
    tally: Callable[[], Tensor]

    @property
    def given(self) -> set[Need]:
        """The needs of formulas that are met."""
        given: set[Need] = {"scatter"}
        if self.buffers:
            given.add("samples")
        if self.classifier is not None:
            given.add("classifier")
        if bool(self.outside.isfinite().all()):
            given.add("outside")
        minority = self.minority_present
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
    def minority_present(self) -> Tensor:
        """(K',) bool."""
        return self.minority[self.stats.present]

    @property
    def raw_means(self) -> Tensor:
        """(K', d) class means, not centred."""
        return self.stats.means[self.stats.present]

    @property
    def counts(self) -> list[int]:
        """K' counts that set the SELI and GOF targets."""
        seen = self.stats.counts
        counts = seen if self.class_counts is None else seen.new_tensor(self.class_counts)
        return [int(n) for n in counts[self.stats.present]]
