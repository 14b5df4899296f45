"""NC4 against class means known beforehand, so that no sample has to be buffered."""

from dataclasses import replace

import torch
from torch import Tensor

from deq_collapse.metrics.functional import decide
from deq_collapse.metrics.functional.rule import Rule
from deq_collapse.metrics.inputs import finite_rows
from deq_collapse.metrics.statistics import ClassStatistics


class FixedMeans:
    """Class means to compare decisions with, on the device and in the precision of the incoming features.

    Args:
        stats: the statistics that hold the means.

    """

    def __init__(self, stats: ClassStatistics) -> None:
        self.stats = replace(stats.checked(), scatter=None)  # a copy, without cached values
        self._rule: tuple[torch.dtype, torch.device, Rule] | None = None

    def count(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Count samples, and those for which the classifier and the nearest mean disagree, (2,).

        Args:
            features: (N, d); non-finite ones are not counted.
            labels: (N,), of any class; samples with labels out of range are not counted.
            weight: (K, d) classifier rows.
            bias: (K,) or None.

        """
        classes = len(self.stats.counts)
        valid = finite_rows(features) & (labels >= 0) & (labels < classes)
        nearest = self._made_for(features).nearest(features, labels.clamp(0, classes - 1))
        differs = valid & (nearest != decide(features, weight, bias))
        return torch.stack([valid.sum(), differs.sum()])

    def _made_for(self, features: Tensor) -> Rule:
        key = torch.promote_types(features.dtype, torch.float32), features.device
        if self._rule is None or self._rule[:2] != key:
            stats = self.stats
            counts, means, variances = (x.to(key[1]) for x in (stats.counts, stats.means, stats.variances))
            there = replace(stats, counts=counts, means=means, variances=variances)
            self._rule = *key, Rule.of(there, key[0], spread=False)
        return self._rule[2]
