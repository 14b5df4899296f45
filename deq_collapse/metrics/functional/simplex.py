"""NC2, equal norms and equal, maximal angles (Papyan 2020; Zhu 2021), of class means or classifier rows."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

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


def cosines(rows: Tensor) -> Tensor:
    """Cosines of all pairs of rows, (K, K); those of a zero row are 0."""
    directions = normalize(rows, dim=1, eps=torch.finfo(rows.dtype).tiny)
    return directions @ directions.T


def uniformity(rows: Tensor) -> Tensor:
    """Log-kernel energy of the directions of rows on the sphere, less that of the ETF; Liu et al. 2023.

    The energy is the mean over pairs of log(1 / ||u_a - u_b||), u = row / ||row||.

    Args:
        rows: (K, d), centred class means or classifier rows.

    Returns:
        Scalar >= 0; 0 for a simplex ETF. Directions closer than 1e-7 count as 1e-7 apart, so it stays finite.

    """
    distances = (2 - 2 * pairs(cosines(rows))).clamp(min=1e-14).sqrt()
    ideal = math.sqrt(2 * len(rows) / (len(rows) - 1))
    return (ideal / distances).log().mean()


def pairs(matrix: Tensor) -> Tensor:
    """Entries a < b of a symmetric (K, K) matrix, (K(K-1)/2,)."""
    a, b = torch.triu_indices(len(matrix), len(matrix), 1, device=matrix.device)
    return matrix[a, b]


def angle_deviation(rows: Tensor) -> Tensor:
    """Mean over pairs of abs(cos + 1/(K-1)); Papyan, Han & Donoho 2020.

    Args:
        rows: (K, d), centred class means or classifier rows.

    Returns:
        Scalar in [0, 1 + 1/(K-1)]; 0 for a simplex ETF.

    """
    return (pairs(cosines(rows)) + 1 / (len(rows) - 1)).abs().mean()


def etf_distance(rows: Tensor) -> Tensor:
    """|| G/||G||_F - (I - 11^T/K)/sqrt(K-1) ||_F with G = rows rows^T; Zhu et al. 2021.

    Args:
        rows: (K, d), centred class means or classifier rows.

    Returns:
        Scalar in [0, 2]; 0 for a simplex ETF, 1 if all rows are 0.

    """
    return gram_distance(rows @ rows.T, simplex_etf_gram(len(rows)))
