"""Values of every sample once the class means are known: its nearest mean and its spread in their span."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deq_collapse.metrics.moments import TILE, full_precision
from deq_collapse.metrics.statistics import ClassStatistics

# If a residual is this many times as long as its projection, the projection is computed in float64: float32
# would round it too much.
ROUGH = 32


def tiles(*parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors of equal length into pieces that stay in the processor's cache; none if they are empty."""
    if len(parts[0]):
        yield from zip(*(torch.split(part, TILE) for part in parts), strict=True)


@dataclass(frozen=True)
class Rule:
    """Projects residuals r = h - mu_y once and derives both values from the projection.

    Attributes:
        means: (K, d), rounded to the type of the computation.
        reach: (K,) a sample closer than this to the mean of its class is closer to no other mean.
        first: (d, m) factor of the residuals: the centred means or, for the spread, the directions of
            Sigma_B, each divided by the root of its eigenvalue as a share of the largest.
        shift: (K, m) compensates the rounding of the means; already included in `table` without the spread.
        second: (m, K) maps those directions to the centred means, or None.
        table: (K, K) squared distances between the means; inf where one is absent.
        scale: the largest eigenvalue of M M^T, by which the squared length of a projection is divided.
        exact: (K, d) means and (m, d) directions in float64.

    """

    means: Tensor
    reach: Tensor
    first: Tensor
    shift: Tensor
    second: Tensor | None
    table: Tensor
    scale: Tensor
    exact: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, stats: ClassStatistics, dtype: torch.dtype, spread: bool) -> "Rule":
        """Prepare for computations in `dtype`; the `spread` costs one more (d, K) product."""
        K, present = len(stats.counts), stats.present.nonzero().flatten()
        means = stats.means.to(dtype)
        rounding = means.to(torch.float64, copy=True).sub_(stats.means)
        second, scale = None, stats.means.new_ones(())
        if spread and stats.between[0].numel():
            values, vectors = stats.between
            scale = values[-1]
            first = stats.directions().mul_((scale / values).sqrt()[:, None])
            second = stats.means.new_zeros(len(values), K)
            second[:, present] = (vectors * (values / scale.sqrt())).T
            second = second.to(dtype)
        else:
            first = stats.centred
            if len(present) < K:
                first = torch.zeros_like(stats.means).index_copy_(0, present, first)
        shift, slack = rounding @ first.T, rounding.norm(dim=1)
        del rounding
        table = torch.full((K, K), torch.inf, dtype=torch.float64, device=means.device)
        table[present[:, None], present] = stats.distances.square()
        # Half the distance to the nearest other mean, by the triangle inequality, less a margin for rounding.
        reach = 0.99 * (table.fill_diagonal_(torch.inf).amin(1).sqrt() / 2 - slack)
        table.fill_diagonal_(0)
        if second is None:
            table.sub_(shift, alpha=2)
        columns = torch.empty(first.T.shape, dtype=dtype, device=first.device).copy_(first.T)
        rest = shift.to(dtype), second, table.to(dtype), scale, (stats.means, first)
        return cls(means, reach.to(dtype), columns, *rest)

    def apply(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest mean (N,) and spread (N,), r pinv(M^T M) r^T or 0, of samples (N, d) with labels (N,)."""
        residuals = self.means.index_select(0, labels)
        torch.sub(features, residuals, out=residuals)
        lengths = torch.linalg.vector_norm(residuals, dim=1)
        far = (~(lengths < self.reach.index_select(0, labels))).nonzero().flatten()
        some = slice(None) if len(far) == len(labels) else far
        nearest = labels.clone()
        # ||h - mu_c||^2 - ||h - mu_y||^2 = ||mu_c - mu_y||^2 - 2 r (mu_c - mu_y)^T, up to a constant.
        scores = self.table.index_select(0, labels[some])
        with full_precision(features.device.type):
            if self.second is None:
                spread = lengths.new_zeros(len(lengths), dtype=torch.float64)
                scores.addmm_(residuals[some], self.first, alpha=-2)
            else:
                q = torch.addmm(self.shift.index_select(0, labels), residuals, self.first)
                self._refine(q, lengths, features, labels)
                spread = q.square().sum(1).double() / self.scale
                scores.addmm_(q[some], self.second, alpha=-2)
        nearest[some] = scores.argmin(1)
        return nearest, spread

    def _refine(self, q: Tensor, lengths: Tensor, features: Tensor, labels: Tensor) -> None:
        """Recompute the projections (N, m) of long residuals, those of outliers, in float64."""
        if q.dtype == torch.float64:
            return
        means, directions = self.exact
        longest = directions.norm(dim=1).max()
        rows = (lengths * longest > ROUGH * q.norm(dim=1)).nonzero().flatten()
        if len(rows):
            q[rows] = ((features[rows].double() - means[labels[rows]]) @ directions.T).to(q.dtype)

    def nearest(self, features: Tensor, labels: Tensor) -> Tensor:
        """Nearest mean (N,) of samples (N, d) with any labels (N,): their classes may have no mean here."""
        present = self.table.isfinite().sum(1) > 1  # an absent class has a finite distance only to itself
        any_present = present.to(torch.uint8).argmax()
        # Distances may be taken relative to the distance to any mean.
        own = torch.where(present[labels], labels, any_present)
        return torch.cat([own[:0]] + [self.apply(x, y)[0] for x, y in tiles(features, own)])
