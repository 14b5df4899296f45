"""Cosines and angles between classes, and the order of classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deq_collapse.runs.geometry import Geometry


def cosine_gram(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines between all pairs of rows, (K, d) -> (K, K) in [-1, 1]; nan where a row is zero."""
    rows = np.asarray(rows, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norms, out=np.full_like(rows, np.nan), where=norms > 0)
    gram: NDArray[np.float64] = np.clip(unit @ unit.T, -1, 1)
    return gram


def class_angles(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Angles in degrees, (K, K), between class means of the training split, centred by their unweighted mean,
    and between classifier rows.
    """
    means = np.asarray(geometry.class_means_train, dtype=np.float64)
    return _degrees(cosine_gram(means - means.mean(axis=0))), _degrees(cosine_gram(geometry.weight))


def target_angles(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles in degrees of a target given by its Gram matrix, (K, K)."""
    lengths = np.sqrt(np.diagonal(gram))
    return _degrees(np.clip(gram / np.outer(lengths, lengths), -1, 1))


def class_order(geometry: Geometry) -> NDArray[np.int64]:
    """Class indices, majority first."""
    rest = np.setdiff1d(np.arange(len(geometry.weight)), geometry.majority)
    return np.concatenate([geometry.majority, rest]).astype(np.int64)


def _degrees(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """In degrees, with 0 on the diagonal, where rounding leaves cosines slightly below 1."""
    angles: NDArray[np.float64] = np.degrees(np.arccos(cosines))
    np.fill_diagonal(angles, np.where(np.isnan(np.diagonal(angles)), np.nan, 0.0))
    return angles
