"""What every sample meets once the class means are known: its nearest mean, its spread towards the means."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deq_collapse.metrics.moments import TILE, full_precision
from deq_collapse.metrics.statistics import ClassStatistics


def tiles(*parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors of equal length into pieces that stay in the processor's cache; none if they are empty."""
    if len(parts[0]):
        yield from zip(*(torch.split(part, TILE) for part in parts), strict=True)


@dataclass(frozen=True)
class Rule:
    """Projects residuals r = h - mu_y once, and reads off both.

    Attributes:
        means: (K, d), rounded to the type samples are computed in.
        first: (d, m), what residuals are multiplied with: the centred means or, for the spread, the
            directions of Sigma_B, each over the root of its eigenvalue as a share of the largest.
        shift: (K, m) takes up the rounding of the means.
        second: (m, K) from those directions on to the centred means, or None.
        table: (K, K) squared distances of the means; inf where one is absent.
        scale: the largest eigenvalue of M M^T, by which the squared length of a projection is divided.

    """

    means: Tensor
    first: Tensor
    shift: Tensor
    second: Tensor | None
    table: Tensor
    scale: Tensor

    @classmethod
    def of(cls, stats: ClassStatistics, dtype: torch.dtype, spread: bool) -> "Rule":
        """Prepare for samples computed in `dtype`; the `spread` costs a (d, K) product more."""
        present = stats.present
        first, second, scale = torch.zeros_like(stats.means), None, stats.means.new_ones(())
        first[present] = stats.centred
        if spread and stats.between[0].numel():
            values, vectors = stats.between
            scale = values[-1]
            first = stats.directions * (scale / values).sqrt()[:, None]
            second = stats.means.new_zeros(len(values), len(present))
            second[:, present] = (vectors * (values / scale.sqrt())).T
            second = second.to(dtype)
        table = torch.full_like(present.outer(present), torch.inf, dtype=torch.float64)
        table[present.outer(present)] = stats.distances.square().flatten()
        means = stats.means.to(dtype)
        first = first.to(dtype).T.contiguous()
        with full_precision(means.device.type):
            shift = (means.double() - stats.means).to(dtype) @ first
        return cls(means, first, shift, second, table.to(dtype), scale)

    def apply(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest mean (N,) and spread (N,), r pinv(M^T M) r^T, of samples (N, d) with labels (N,)."""
        residuals = self.means.index_select(0, labels)
        torch.sub(features, residuals, out=residuals)
        scores = self.table.index_select(0, labels)
        with full_precision(features.device.type):
            q = torch.addmm(self.shift.index_select(0, labels), residuals, self.first)
            # ||h - mu_c||^2 - ||h - mu_y||^2 = ||mu_c - mu_y||^2 - 2 r (mu_c - mu_y)^T, but for a constant.
            if self.second is None:
                scores.sub_(q, alpha=2)
            else:
                scores.addmm_(q, self.second, alpha=-2)
        return scores.argmin(1), q.square().sum(1).double() / self.scale
