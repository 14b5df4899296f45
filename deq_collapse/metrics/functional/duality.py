"""NC0 of a classifier (Zhao 2026), and NC3, its duality to the class means (Papyan 2020, Zhu 2021)."""

import torch
from torch import Tensor

from deq_collapse.metrics.functional.simplex import variation
from deq_collapse.metrics.geometry import gram_distance, normalised_distance, simplex_etf_gram


def nc0(weight: Tensor) -> Tensor:
    """||W^T 1||^2 / K, the squared length of the sum of the rows; Zhao 2026 (arXiv 2602.16642).

    Unless it is 0, the rows are neither a simplex ETF nor dual to centred means. It scales with the square of
    the weights.

    Args:
        weight: (K, d) classifier rows.

    Returns:
        Scalar in [0, inf]; 0 when the rows sum to 0.

    """
    return weight.sum(0).square().sum() / len(weight)


def nc3(weight: Tensor, means: Tensor) -> Tensor:
    """|| W/||W||_F - M/||M||_F ||_F^2, the difference form; Papyan, Han & Donoho 2020.

    Args:
        weight: (K, d) classifier rows.
        means: (K, d) centred class means.

    Returns:
        Scalar in [0, 4]; 0 when dual or if both are 0, 1 if only one of them is 0.

    """
    return normalised_distance(weight, means).square()


def nc3_product(product: Tensor) -> Tensor:
    """|| W M^T/||W M^T||_F - (I - 11^T/K)/sqrt(K-1) ||_F, the product form; Zhu et al. 2021.

    Args:
        product: W M^T, (K, K), of classifier rows and centred class means.

    Returns:
        Scalar in [0, 2]; 0 when both form one simplex ETF.

    """
    return gram_distance(product, simplex_etf_gram(len(product)))


def nc3_alignment(weight: Tensor, means: Tensor) -> Tensor:
    """Mean over classes of cos(w_c, mu_c - mu_G).

    Args:
        weight: (K, d) classifier rows.
        means: (K, d) centred class means.

    Returns:
        Scalar in [-1, 1]; 1 when aligned; the cosine of a zero row is 0.

    """
    return _cosines(weight, means).mean()


def duality_variation(weight: Tensor, means: Tensor) -> Tensor:
    """UNC3, the variation over classes of cos(w_c, mu_c - mu_G); Wu & Papyan 2024.

    Args:
        weight: (K, d) classifier rows.
        means: (K, d) centred class means.

    Returns:
        Scalar in [0, inf]; 0 when all classes are aligned alike; the cosine of a zero row is 0.

    """
    return variation(_cosines(weight, means))


def _cosines(weight: Tensor, means: Tensor) -> Tensor:
    products = torch.einsum("kd,kd->k", weight, means)
    sizes = weight.norm(dim=1) * means.norm(dim=1)
    return torch.where(sizes > 0, products / sizes, 0)
