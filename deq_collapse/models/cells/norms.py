"""Operator norms of linear maps: tracked from below while weights change, with guaranteed upper bounds."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from deq_collapse.models.cells.circular import conv_symbol

Linear = Callable[[Tensor], Tensor]
"""A linear map of a batch of samples."""


@torch.no_grad()
def leading_vectors(linear: Linear, adjoint: Linear, vectors: Tensor, steps: int, tol: float) -> Tensor:
    """Turns orthonormal vectors towards the leading right singular vectors of a linear map.

    Block power iteration with a Rayleigh-Ritz rotation (Halko, Martinsson & Tropp, "Finding Structure with
    Randomness", SIAM Review 2011, section 4.5). Every step turns the last vector slightly towards one with a
    component in every direction, so that no growing direction is missed.

    Args:
        linear: the map.
        adjoint: its transpose.
        vectors: shape ``(k, ...)``, orthonormal.
        steps: largest number of steps.
        tol: stop once the largest singular value grows by no more than this share in one step.

    Returns:
        Orthonormal vectors, the leading one first.
    """
    count = torch.arange(1, vectors[0].numel() + 1, dtype=torch.float64, device=vectors.device)
    everywhere = 0.1 * unit((12.9898 * count).sin().to(vectors.dtype))
    largest = vectors.new_zeros(())
    for _ in range(steps):
        images = linear(vectors)
        rows = images.flatten(1)
        gram = rows @ rows.T
        if not bool(gram.isfinite().all()):  # the loss will show that the weights are not finite
            break
        squares, rotation = torch.linalg.eigh(gram)
        before, largest = largest, squares[-1].clamp_min(0).sqrt()
        rotation = rotation.flip(1).T
        if bool(largest <= before * (1 + tol)):
            vectors = (rotation @ vectors.flatten(1)).view_as(vectors)
            break
        moved = adjoint((rotation @ rows).view_as(images)).flatten(1)
        moved[-1] = unit(moved[-1]) + everywhere
        vectors = orthonormal(moved).view_as(vectors)
    return vectors


def unit(vector: Tensor) -> Tensor:
    """The vector scaled to length 1; zero stays zero."""
    length: Tensor = torch.linalg.vector_norm(vector)
    return vector / length.clamp_min(torch.finfo(vector.dtype).tiny)


def orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows that span the given ones, (k, d) with k <= d, and more if these are dependent."""
    q: Tensor = torch.linalg.qr(rows.T).Q
    return q.T.contiguous()


@torch.no_grad()
def matrix_norm(matrices: Tensor) -> float:
    """The largest singular value of a batch of matrices, (..., m, n); nan if an entry is not finite."""
    if not bool(matrices.isfinite().all()):
        return math.nan
    return float(torch.linalg.svdvals(matrices).max())


@torch.no_grad()
def dense_norm(linear: Linear, like: Tensor) -> tuple[float, Tensor]:
    """The operator norm of a linear map, exact up to rounding, from its dense matrix.

    Args:
        linear: the map.
        like: a batch of samples of the shape, type and device that the map takes.

    Returns:
        The norm and its right singular vector, (1, ...); nan and an arbitrary vector if it is not finite.
    """
    size = like[0].numel()
    basis = torch.eye(size, dtype=like.dtype, device=like.device).view(size, *like.shape[1:])
    rows = linear(basis).flatten(1).double()
    gram = rows @ rows.T
    if not bool(gram.isfinite().all()):
        return math.nan, basis[:1]
    squares, vectors = torch.linalg.eigh(gram)
    return math.sqrt(max(0.0, float(squares[-1]))), vectors[:, -1].to(like.dtype).view_as(like[:1])


@torch.no_grad()
def circular_norm(weight: Tensor, height: int, width: int) -> float:
    """An upper bound on the operator norm of a zero-padded 3x3 convolution on maps of one size.

    It is the norm of the circular convolution on a map one row and one column larger, which splits into one
    matrix per frequency. With zeros in that row and column, it agrees with the zero-padded one.

    Args:
        weight: kernel, (C', C, 3, 3).
        height: of the map.
        width: of the map.
    """
    return matrix_norm(conv_symbol(weight.double(), height + 1, width + 1))
