"""NC2: equal norms and equal, maximal angles (Papyan 2020; Zhu 2021), of class means or classifier rows.

All but the norms are functions of the Gram matrix G = rows rows^T, which several of them share.
"""

import math

import torch
from torch import Tensor

from deq_collapse.metrics.geometry import gram_distance, simplex_etf_gram


def norm_variation(rows: Tensor) -> Tensor:
    """std / mean of the row norms (population std); Papyan, Han & Donoho 2020.

    Args:
        rows: (K, d), centred class means or classifier rows.

    Returns:
        Scalar in [0, sqrt(K-1)]; 0 for equal norms, also if all are 0.

    """
    norms = rows.norm(dim=1)
    mean = norms.mean()
    return torch.where(mean > 0, norms.std(correction=0) / mean, 0)


def cosines(gram: Tensor) -> Tensor:
    """Cosines of all pairs of rows, (K, K), from their Gram matrix (K, K); those of a zero row are 0."""
    scale = gram.diagonal().sqrt()
    scale = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
    return (gram * scale).mul_(scale[:, None])


def pairs(matrix: Tensor) -> Tensor:
    """Entries a < b of a symmetric (K, K) matrix, (K(K-1)/2,)."""
    return matrix[torch.ones_like(matrix, dtype=torch.bool).triu_(1)]


def uniformity(gram: Tensor) -> Tensor:
    """Log-kernel energy of the directions of rows on the sphere, less that of the ETF; Liu et al. 2023.

    The energy is the mean over pairs of log(1 / ||u_a - u_b||), u = row / ||row||.

    Args:
        gram: (K, K), of centred class means or classifier rows.

    Returns:
        Scalar >= 0; 0 for a simplex ETF. Directions closer than 1e-7 count as 1e-7 apart, so it stays finite.

    """
    K = len(gram)
    squared = cosines(gram).mul_(-2).add_(2).clamp_(min=1e-14).fill_diagonal_(1)
    return (math.log(2 * K / (K - 1)) - squared.log_().sum() / (K * (K - 1))) / 2


def kernel_variation(gram: Tensor) -> Tensor:
    """GNC2, the variation over pairs of log(1 / ||u_a - u_b||), u = row / ||row||; Wu & Papyan 2024.

    Args:
        gram: (K, K), of centred class means or classifier rows.

    Returns:
        Scalar in [0, inf]; 0 for equal distances, as in a simplex ETF. Directions closer than 1e-7 count as
        1e-7 apart.

    """
    return variation(pairs(cosines(gram).mul_(-2).add_(2).clamp_(min=1e-14)).log_())


def variation(values: Tensor) -> Tensor:
    """Population standard deviation over the absolute mean; 0 for equal values, else inf for a mean of 0."""
    spread, mean = values.std(correction=0), values.mean().abs()
    equal = spread <= 64 * torch.finfo(values.dtype).eps * values.abs().max()
    return torch.where(equal, 0, spread / mean)


def angle_deviation(gram: Tensor) -> Tensor:
    """Mean over pairs of abs(cos + 1/(K-1)); Papyan, Han & Donoho 2020.

    Args:
        gram: (K, K), of centred class means or classifier rows.

    Returns:
        Scalar in [0, 1 + 1/(K-1)]; 0 for a simplex ETF.

    """
    K = len(gram)
    return cosines(gram).add_(1 / (K - 1)).abs_().fill_diagonal_(0).sum() / (K * (K - 1))


def etf_distance(gram: Tensor) -> Tensor:
    """|| G/||G||_F - (I - 11^T/K)/sqrt(K-1) ||_F; Zhu et al. 2021.

    Args:
        gram: G, (K, K), of centred class means or classifier rows.

    Returns:
        Scalar in [0, sqrt(2)]; 0 for a simplex ETF, 1 if all rows are 0.

    """
    return gram_distance(gram, simplex_etf_gram(len(gram)))
