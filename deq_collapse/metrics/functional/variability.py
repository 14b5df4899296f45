"""NC1, within-class variability: Papyan 2020; as a trace ratio, Tirer 2023; as CDNV, Galanti 2021."""

import math

import torch
from torch import Tensor

from deq_collapse.metrics.moments import strips
from deq_collapse.metrics.statistics import ClassStatistics


def nc1(stats: ClassStatistics) -> Tensor:
    """Tr(Sigma_W pinv(Sigma_B)) / K over the K classes present; Papyan, Han & Donoho 2020.

    Sigma_B = M^T M / K has the non-zero spectrum of the small matrix M M^T / K, so the pseudo-inverse comes
    from a (K, K) eigenproblem. It is truncated at rank min(K-1, d) and where means no longer differ;
    `between_rank` is the remaining rank.

    Returns:
        Scalar in [0, inf]; 0 when collapsed; inf when all class means coincide.

    Raises:
        ValueError: if `stats` were made without Sigma_W.

    """
    if stats.scatter is None:
        raise ValueError("nc1 needs the within-class covariance, which these statistics were made without")
    values = stats.between[0]
    if not values.numel():
        return stats.means.new_tensor(math.inf)
    # Eigenvalues of Sigma_B are values / K: the K cancels against the 1/K of the definition. Directions are
    # taken some at a time: all of them need as much memory as the class means.
    parts = (stats.directions(some).div_(values[some].sqrt()[:, None]) for some in strips(len(values)))
    return sum((stats.scatter.along(part) for part in parts), values.new_zeros(()))


def nc1_per_class(stats: ClassStatistics, spread: Tensor) -> Tensor:
    """Tr(Sigma_c pinv(Sigma_B)) / K with the covariance Sigma_c of each class on its own, (K,).

    Their mean, with classes weighted as in Sigma_W, is `nc1`. No (d, d) matrix is needed: the trace is the
    sum over samples that `tally_samples` computes in the span of the class means.

    Args:
        stats: the means, final over all ranks.
        spread: (K,) from `tally_samples`, added over batches and ranks.

    Returns:
        (K,) in [0, inf]; 0 for a class without samples; inf when all class means coincide.

    """
    if not stats.between[0].numel():
        return torch.where(stats.present, math.inf, 0.0).to(spread)
    return spread / stats.counts.clamp(min=1)


def nc1_trace_ratio(stats: ClassStatistics) -> Tensor:
    """Tr Sigma_W / Tr Sigma_B, Sigma_B over the classes present; Tirer, Huang & Niles-Weed 2023.

    Returns:
        Scalar in [0, inf]; 0 when collapsed; inf when all class means coincide.

    """
    between = stats.gram.diagonal().mean()
    within = stats.weights @ stats.variances
    return torch.where(between > stats.resolution**2, within / between, math.inf)


def cdnv_pairs(stats: ClassStatistics) -> Tensor:
    """(v_a + v_b) / (2 ||mu_a - mu_b||^2) for all pairs of classes present; Galanti 2021.

    Returns:
        (K', K') symmetric, >= 0; nan on the diagonal and for pairs of coincident means.

    """
    v = stats.variances[stats.present]
    distances = stats.distances
    coincide = distances <= stats.resolution
    pairs = (v[:, None] + v).div_(distances.square_().mul_(2))
    return pairs.masked_fill_(coincide, math.nan)


def cdnv_directional(stats: ClassStatistics, spreads: Tensor) -> Tensor:
    """Mean over a != b of the variance of class a along mu_b - mu_a, divided by ||mu_b - mu_a||^2.

    Luthra, Salunkhe & Galanti 2026. `cdnv` uses the variance in all directions instead.

    Args:
        stats: the means.
        spreads: (K, K) from `tally_directions`, added over ranks.

    Returns:
        Scalar in [0, inf]; 0 when collapsed. Coincident pairs are left out; inf if no two means differ.

    """
    distances = stats.distances
    sums = stats.seen(stats.seen(spreads).T).T / stats.seen(stats.counts)[:, None]
    values = torch.where(distances > stats.resolution, sums / distances**4, torch.nan)
    mean = values.nanmean()
    return torch.where(mean.isnan(), math.inf, mean)


def cdnv_per_class(stats: ClassStatistics) -> Tensor:
    """Mean of `cdnv_pairs` of each class present with the others, (K',); inf if all of these coincide."""
    means = cdnv_pairs(stats).nanmean(1)
    return torch.where(means.isnan(), math.inf, means)


def cdnv(stats: ClassStatistics) -> Tensor:
    """Class-distance normalised variance, the mean of `cdnv_pairs` over a != b; Galanti 2021.

    Returns:
        Scalar in [0, inf]; 0 when collapsed. Coincident pairs are left out (`coincident_pairs` counts them);
        inf if no two means differ.

    """
    mean = cdnv_pairs(stats).nanmean()
    return torch.where(mean.isnan(), math.inf, mean)


def coincident_pairs(stats: ClassStatistics) -> Tensor:
    """Number of pairs a < b whose means cannot be told apart in float64."""
    return (stats.distances <= stats.resolution).triu(1).sum().double()


def between_rank(stats: ClassStatistics) -> Tensor:
    """Rank of Sigma_B that `nc1` inverts, at most min(K'-1, d)."""
    return stats.means.new_tensor(stats.between[0].numel())
