"""NC4: the classifier decides like the nearest class mean (Papyan 2020)."""

import torch
from torch import Tensor

from deq_collapse.metrics.moments import TILE, full_precision
from deq_collapse.metrics.statistics import ClassStatistics


def decide(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """argmax(W h + b), (N,), computed in float32 or better.

    Args:
        features: (N, d).
        weight: (K, d).
        bias: (K,) or None.

    """
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    with full_precision(features.device.type):
        b = None if bias is None else bias.to(dtype)
        return torch.nn.functional.linear(features.to(dtype), weight.to(dtype), b).argmax(1)


def nearest_mean(stats: ClassStatistics, features: Tensor, labels: Tensor) -> Tensor:
    """Class whose mean is nearest, among the classes present, (N,).

    Distances are taken relative to that of the sample's own class, from the residual h - mu_y:
    ||h - mu_c||^2 - ||h - mu_y||^2 = ||mu_c - mu_y||^2 - 2 (h - mu_y)(mu_c - mu_y)^T.
    Residuals are small when features collapse, so float32 suffices where the expanded square of h itself
    would cancel.

    Args:
        stats: the means, final over all ranks.
        features: (N, d).
        labels: (N,), classes present.

    """
    means = stats.centred
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    # The pivots are exact in `dtype`, the rest of the means goes into the table.
    pivots = stats.means[stats.present].to(dtype)
    rest = pivots.double() - stats.means[stats.present]
    squared = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist").square()
    table = (squared - 2 * rest @ means.T).to(dtype)
    rank = stats.present.cumsum(0) - 1
    present = stats.present.nonzero().squeeze(1)
    own = rank[labels]
    targets = means.to(dtype).T.contiguous()
    found = []
    with full_precision(features.device.type):
        for x, y in zip(torch.split(features, TILE), torch.split(own, TILE), strict=True):
            residuals = x.to(dtype) - pivots[y]
            found.append(torch.addmm(table[y], residuals, targets, alpha=-2).argmin(1))
    return present[torch.cat(found)] if found else labels


def tally_disagreement(stats: ClassStatistics, features: Tensor, labels: Tensor, decisions: Tensor) -> Tensor:
    """Count samples whose nearest class mean is not the class decided on, and samples, (2,) float64.

    Args:
        stats: the means, final over all ranks.
        features: (N, d).
        labels: (N,); samples labelled K or above are left out.
        decisions: (N,) classes from `decide`.

    """
    kept = labels < len(stats.counts)
    differs = nearest_mean(stats, features[kept], labels[kept]) != decisions[kept]
    return torch.stack([differs.sum(), kept.sum()]).double()
