"""Minority collapse under step imbalance (Fang 2021): angles among minority classes, norms by group."""

import math

import torch
from torch import Tensor

from deq_collapse.metrics.functional.simplex import cosines, pairs

MANY, FEW = 100, 20
"""Bounds on the training images of a class: above `MANY` it is "many", below `FEW` it is "few" (Liu 2019)."""


def minority_cosines(gram: Tensor, minority: Tensor) -> Tensor:
    """Cosines of all pairs of minority classes; Fang, He, Long & Su 2021. 1 everywhere is minority collapse.

    Args:
        gram: (K, K), of classifier rows or centred class means.
        minority: (K,) bool; at least two are True.

    Returns:
        (k(k-1)/2,) for the k minority classes, in [-1, 1].

    """
    return pairs(cosines(gram[minority][:, minority]))


def frequency_groups(counts: Tensor, many: int = MANY, few: int = FEW) -> dict[str, Tensor]:
    """Split classes of a long tail by training counts into "many" (> many), "few" (< few) and "medium".

    Args:
        counts: (K,).
        many: classes with more samples are "many".
        few: classes with fewer samples are "few".

    Returns:
        (K,) bool for each group.

    """
    return {"many": counts > many, "medium": (counts <= many) & (counts >= few), "few": counts < few}


def majority_minority_norm(rows: Tensor, minority: Tensor) -> Tensor:
    """Mean norm of the majority rows divided by that of the minority rows; Fang, He, Long & Su 2021.

    Args:
        rows: (K, d), classifier rows or centred class means.
        minority: (K,) bool; both values occur.

    Returns:
        Scalar in [0, inf]; inf if the minority rows are 0.

    """
    norms = rows.norm(dim=1)
    low = norms[minority].mean()
    return torch.where(low > 0, norms[~minority].mean() / low, math.inf)
