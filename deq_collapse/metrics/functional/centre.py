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


def tally_decisions(stats: ClassStatistics, features: Tensor, labels: Tensor, decisions: Tensor) -> Tensor:
    """Count per class: samples, those not nearest to the mean of the class decided on, those decided right.

    Args:
        stats: the means, final over all ranks.
        features: (N, d).
        labels: (N,); samples labelled K or above are left out.
        decisions: (N,) classes from `decide`.

    Returns:
        (3, K), float64.

    """
    kept = labels < len(stats.counts)
    features, labels, decisions = features[kept], labels[kept], decisions[kept]
    differs = nearest_mean(stats, features, labels) != decisions
    events = torch.stack([torch.ones_like(differs), differs, labels == decisions]).double()
    return events.new_zeros(3, len(stats.counts)).index_add(1, labels, events)


def nc4(tally: Tensor) -> Tensor:
    """Share of samples where argmax(W h + b) differs from the nearest class mean; Papyan, Han & Donoho 2020.

    Args:
        tally: (3, K) from `tally_decisions`, added over batches and ranks.

    Returns:
        Scalar in [0, 1]; 0 when the classifier decides like the nearest class mean.

    Raises:
        ValueError: if no sample was given together with a weight.

    """
    counts = tally.sum(1)
    if not counts[0]:
        raise ValueError("nc4 needs samples that were given together with a weight")
    return counts[1] / counts[0]
