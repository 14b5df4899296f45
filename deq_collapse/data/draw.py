"""Random draws determined by a seed alone, equal on every machine, rank and release of NumPy.

They use the raw output of PCG64, whose stream NumPy guarantees (NEP 19). NumPy does not guarantee the stream
of `Generator.permutation`, nor torch that of `randperm`.
"""

from enum import IntEnum

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor


class Purpose(IntEnum):
    """The purpose of a draw: the first word of its seed, so that no two kinds of draws share a stream."""

    SPLIT = 1
    SELECTION = 2
    ORDER = 3
    AUGMENTATION = 4
    RESAMPLING = 5
    MIXING = 6
    MAJORITY = 7
    SAMPLES = 8


def keys(count: int, purpose: Purpose, *seed: int) -> Tensor:
    """`count` random int64 sort keys, shape (count,), for the non-negative words of `seed`."""
    raw = np.random.PCG64((purpose, *seed)).random_raw(count)
    return torch.from_numpy((raw >> np.uint64(1)).astype(np.int64))


def uniform(count: int, purpose: Purpose, *seed: int) -> Tensor:
    """`count` random numbers strictly between 0 and 1, float64 (count,)."""
    # The upper 52 of a key's 63 random bits: with more, rounding could reach 1.
    return ((keys(count, purpose, *seed) >> 11).double() + 0.5) / 2**52


def permutation(count: int, purpose: Purpose, *seed: int) -> Tensor:
    """A random order of 0..count-1, int64 (count,)."""
    return keys(count, purpose, *seed).argsort(stable=True)


def generator(purpose: Purpose, *seed: int) -> torch.Generator:
    """A torch generator (CPU) seeded by the words of `seed`."""
    return torch.Generator().manual_seed(int(keys(1, purpose, *seed)))


def beta(alpha: float, purpose: Purpose, *seed: int) -> float:
    """A draw from Beta(alpha, alpha), alpha above 0."""
    return float(betaincinv(alpha, alpha, float(uniform(1, purpose, *seed))))
