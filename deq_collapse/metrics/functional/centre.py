"""NC4: the classifier decides like the nearest class mean (Papyan 2020)."""

from collections.abc import Sequence

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
    dtype = _dtype([features])
    with full_precision(features.device.type):
        b = None if bias is None else bias.to(dtype)
        return torch.nn.functional.linear(features.to(dtype), weight.to(dtype), b).argmax(1)


def nearest_mean(stats: ClassStatistics, features: Tensor, labels: Tensor) -> Tensor:
    """Class whose mean is nearest, among the classes present, (N,).

    Distances are taken relative to that of the sample's own class, from the residual h - mu_y:
    ||h - mu_c||^2 - ||h - mu_y||^2 = ||mu_c - mu_y||^2 - 2 (h - mu_y)(mu_c - mu_y)^T.
    Residuals are small when features collapse: float32 suffices where the expanded square of h would cancel.

    Args:
        stats: the means, final over all ranks.
        features: (N, d).
        labels: (N,), classes present.

    """
    return _nearest(_rule(stats, _dtype([features])), features, labels)


Rule = tuple[Tensor, Tensor, Tensor]


def _dtype(chunks: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(chunk.dtype == torch.float64 for chunk in chunks) else torch.float32


def _rule(stats: ClassStatistics, dtype: torch.dtype) -> Rule:
    """Rounded means (K, d), directions (d, K) and offsets (K, K) that take up the rounding; inf if absent."""
    present = stats.present
    M = torch.zeros_like(stats.means)
    M[present] = stats.centred
    means = stats.means.to(dtype)
    table = torch.full((len(M), len(M)), torch.inf, dtype=M.dtype, device=M.device)
    table[present.outer(present)] = stats.distances.square().flatten()
    table -= 2 * (means.double() - stats.means) @ M.T
    return means, M.to(dtype).T.contiguous(), table.to(dtype)


def _nearest(rule: Rule, features: Tensor, labels: Tensor) -> Tensor:
    means, directions, table = rule
    found = [labels.new_empty(0)]
    with full_precision(features.device.type):
        for x, y in zip(torch.split(features, TILE), torch.split(labels, TILE), strict=True):
            residuals = means.index_select(0, y)
            torch.sub(x, residuals, out=residuals)
            found.append(torch.addmm(table.index_select(0, y), residuals, directions, alpha=-2).argmin(1))
    return torch.cat(found)


def tally_decisions(
    stats: ClassStatistics, features: Sequence[Tensor], labels: Sequence[Tensor], decisions: Sequence[Tensor]
) -> Tensor:
    """Count per class: samples, those not nearest to the mean of the class decided on, those decided right.

    Args:
        stats: the means, final over all ranks.
        features: chunks (n, d), on any device.
        labels: chunks (n,); samples labelled K or above are left out.
        decisions: chunks (n,) of classes from `decide`.

    Returns:
        (3, K), float64, on the device of `stats`.

    """
    K = len(stats.counts)
    tally = stats.counts.new_zeros(3, K)
    rule = _rule(stats, _dtype(features))
    for chunk in zip(features, labels, decisions, strict=True):
        x, y, decided = (part.to(tally.device) for part in chunk)
        if int(y.max()) >= K:
            x, y, decided = (part[y < K] for part in (x, y, decided))
        differs = _nearest(rule, x, y) != decided
        tally.index_add_(1, y, torch.stack([torch.ones_like(differs), differs, y == decided]).double())
    return tally


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
