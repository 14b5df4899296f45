"""Values that need all samples again once the means are known: NC4, accuracy, NC1 without a (d, d) matrix."""

from collections.abc import Sequence

import torch
from torch import Tensor

from deq_collapse.metrics.functional.rule import Rule, tiles
from deq_collapse.metrics.statistics import ClassStatistics


def tally_directions(stats: ClassStatistics, features: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Add up ((h - mu_a) (mu_b - mu_a)^T)^2 over samples of every class a, for every b; N d K in float64.

    Args:
        stats: the means, final over all ranks.
        features: chunks (n, d), on any device.
        labels: chunks (n,); samples labelled K or above are left out.

    Returns:
        (K, K), float64, on the device of `stats`.

    """
    K, means = len(stats.counts), stats.means
    tally = stats.counts.new_zeros(K, K)
    for chunk in zip(features, labels, strict=True):
        for x, y in tiles(*(part.to(tally.device) for part in chunk)):
            x, y = x[y < K].double(), y[y < K]
            along = (x - means[y]) @ (means - stats.global_mean).T
            along -= along.gather(1, y[:, None])
            tally.index_add_(0, y, along.square_())
    return tally


def tally_samples(
    stats: ClassStatistics,
    features: Sequence[Tensor],
    labels: Sequence[Tensor],
    decisions: Sequence[Tensor],
    spread: bool = True,
) -> Tensor:
    """Add up per class the values that need every sample again once the means are known.

    Args:
        stats: the means, final over all ranks.
        features: chunks (n, d), on any device.
        labels: chunks (n,); samples labelled K or above are left out.
        decisions: chunks (n,) of classes from `decide`; -1 where no classifier decided.
        spread: whether to compute the spread, which costs N d K.

    Returns:
        (4, K), float64, on the device of `stats`: the samples decided on, those of them that are not nearest
        to the mean of the decided class, those decided correctly, and the spread for `nc1_per_class`: the sum
        over samples of r pinv(M^T M) r^T, r = h - mu_y.

    """
    K = len(stats.counts)
    tally = stats.counts.new_zeros(4, K)
    dtype = torch.float64 if any(chunk.dtype == torch.float64 for chunk in features) else torch.float32
    rule = Rule.of(stats, dtype, spread)
    for chunk in zip(features, labels, decisions, strict=True):
        for tile in tiles(*(part.to(tally.device) for part in chunk)):
            x, y, decided = tile if int(tile[1].max()) < K else (part[tile[1] < K] for part in tile)
            nearest, spreads = rule.apply(x, y)
            known = decided >= 0
            rows = [known, known & (nearest != decided), y == decided, spreads]
            tally.index_add_(1, y, torch.stack([row.double() for row in rows]))
    return tally
