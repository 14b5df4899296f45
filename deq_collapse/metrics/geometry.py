"""Geometries set by the class counts: simplex ETF, SELI (Thrampoulidis 2022), GOF (Dang 2023), and the
geometry of cross entropy with features after a ReLU (Dang 2024).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from deq_collapse.metrics.moments import strips

# Number of classes up to which SELI targets are remembered.
REMEMBERED = 256


class Geometry(NamedTuple):
    """Gram matrices of a target, each (K, K), float64 and of unit Frobenius norm.

    Attributes:
        weights: W W^T of the classifier rows.
        means: H^T H of one feature per class.
        logits: W H.

    """

    weights: Tensor
    means: Tensor
    logits: Tensor


def inverse_norm(matrix: Tensor) -> Tensor:
    """One over the Frobenius norm, a scalar; 0 for a zero matrix."""
    norm: Tensor = torch.linalg.vector_norm(matrix)
    return torch.where(norm > 0, 1 / norm, torch.zeros_like(norm))


def normalised(matrix: Tensor) -> Tensor:
    """Divide by the Frobenius norm; a zero matrix stays zero."""
    return matrix * inverse_norm(matrix)


def normalised_distance(left: Tensor, right: Tensor) -> Tensor:
    """|| left/||left||_F - right/||right||_F ||_F, a scalar; some rows at a time, without a third matrix."""
    a, b = inverse_norm(left), inverse_norm(right)
    squared = [
        (left[rows] * a).addcmul_(right[rows], b, value=-1).square_().sum() for rows in strips(len(left))
    ]
    return torch.stack(squared).sum().sqrt()


def centred_rows(matrix: Tensor) -> Tensor:
    """P A, P = I - 11^T/K: the rows of A (K, n) minus their mean."""
    return matrix - matrix.mean(0)


def centred_diagonal(diagonal: Tensor) -> Tensor:
    """P D, (K, K), D = diag(diagonal): rows minus the mean of the rows. No other (K, K) matrix is made."""
    product = (-diagonal / len(diagonal)).repeat(len(diagonal), 1)
    product.diagonal().add_(diagonal)
    return product


def doubly_centred_diagonal(diagonal: Tensor) -> Tensor:
    """P D P, (K, K), likewise."""
    parts = diagonal / len(diagonal)
    product = (parts.mean() - parts)[:, None] - parts
    product.diagonal().add_(diagonal)
    return product


def gram_distance(gram: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
    """|| gram/||gram||_F - target/||target||_F ||_F at class level.

    W W^T has one row per class whatever the counts, so `counts` are for Gram matrices of means; for logits
    use `logit_distance`.

    Args:
        gram: (K, K).
        target: (K, K).
        counts: (K,) weights by samples: entry a, b counts n_a n_b times, which equals the distance of the
            (N, N) matrices of collapsed features. None weights all classes equally.

    Returns:
        Scalar in [0, 2]; 0 if both agree up to scale, 1 if `gram` is 0.

    """
    target = target.to(gram)
    if counts is not None:
        weights = counts.to(gram).sqrt().outer(counts.to(gram).sqrt())
        gram, target = gram * weights, target * weights
    return normalised_distance(gram, target)


def logit_distance(logits: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
    """The distance of `gram_distance` for logits, whose columns represent samples and whose rows do not.

    Args:
        logits: W H, (K, K), a row per classifier row and a column per class mean.
        target: (K, K).
        counts: (K,) weights by samples: column c counts n_c times, which equals the distance of the (K, N)
            matrices of collapsed features. None weights all classes equally.

    Returns:
        Scalar in [0, 2]; 0 if both agree up to scale, 1 if `logits` are 0.

    """
    target = target.to(logits)
    if counts is not None:
        weights = counts.to(logits).sqrt()
        logits, target = logits * weights, target * weights
    return normalised_distance(logits, target)


def simplex_etf_gram(num_classes: int) -> Tensor:
    """Gram matrix of the simplex ETF, (I - 11^T/K)/sqrt(K-1), (K, K); Papyan 2020, Zhu 2021.

    Raises:
        ValueError: if `num_classes` < 2.

    """
    if num_classes < 2:
        raise ValueError(f"a simplex needs at least 2 classes, got {num_classes}")
    scale = (num_classes - 1) ** -0.5
    etf = torch.full((num_classes, num_classes), -scale / num_classes, dtype=torch.float64)
    return etf.fill_diagonal_(scale * (1 - 1 / num_classes))


def seli(counts: Sequence[int]) -> Geometry:
    """Geometry of simplex-encoded labels interpolation for class counts n_c; Thrampoulidis et al. 2022.

    The SVD of Zhat[c, i] = 1{c = y_i} - 1/K = V L U^T gives W W^T ~ V L V^T and H^T H ~ U L U^T. With
    P = I - 11^T/K and D = diag(n_c), at class level: W W^T ~ (P D P)^(1/2), the Gram matrix of class features
    is its pseudo-inverse, and W H ~ P. Equal counts give the simplex ETF. Scaling all counts changes nothing.

    Raises:
        ValueError: if there are fewer than 2 counts or one is not positive.

    """
    return Geometry(seli_gram(counts, "weights"), seli_gram(counts, "means"), simplex_etf_gram(len(counts)))


def gof(counts: Sequence[int], weight_decay: float = 0.0, feature_decay: float = 0.0) -> Geometry:
    """General orthogonal frame of mean squared error, unconstrained features and no bias; Dang et al. 2023.

    The minimum of ||W H - Y||^2 / (2N) + weight_decay ||W||^2 / 2 + feature_decay ||H||^2 / 2 is orthogonal,
    with logits s_c = 1 - N sqrt(weight_decay feature_decay / n_c), ||w_c||^2 = s_c sqrt(n_c feature_decay /
    weight_decay) and ||h_c||^2 = s_c sqrt(weight_decay / (n_c feature_decay)); a class with s_c <= 0 is 0. Up
    to scale, the lengths depend only on the product of the decays; without decay they take the limit s_c = 1.

    Raises:
        ValueError: if there are fewer than 2 counts, one is not positive, or a decay is negative.

    """
    return Geometry(*map(torch.diag, gof_diagonals(counts, weight_decay, feature_decay)))


def relu_ce(counts: Sequence[int], weight_decay: float = 0.0, feature_decay: float = 0.0) -> Geometry:
    """Geometry of cross entropy with features >= 0, otherwise unconstrained, and no bias; Dang et al. 2024.

    The minimum of CE(W H) / N + weight_decay ||W||^2 / 2 + feature_decay ||H||^2 / 2 over W and H >= 0 has
    orthogonal class means, which are not centred, and centred rows of W: with P = I - 11^T/K, W H = P
    diag(m_c), ||h_c||^2 = m_c sqrt((K-1) weight_decay / (K n_c feature_decay)), W = P diag(m_c / ||h_c||^2)
    H^T. The margins are m_c = log((K-1) (sqrt(K n_c / ((K-1) weight_decay feature_decay)) / N - 1)); where
    that is not > 0, that is where n_c <= K/(K-1) N^2 weight_decay feature_decay, the class is 0. Up to scale,
    everything depends only on the product of the decays. As it vanishes, the margins become equal; zero decay
    gives this limit: means like those of `gof`, and rows that are not orthogonal.

    Raises:
        ValueError: if there are fewer than 2 counts, one is not positive, or a decay is negative.

    """
    weights, means, logits = relu_ce_diagonals(counts, weight_decay, feature_decay)
    return Geometry(
        normalised(doubly_centred_diagonal(weights)),
        means.diag(),
        normalised(centred_diagonal(logits)),
    )


def relu_ce_diagonals(
    counts: Sequence[int], weight_decay: float = 0.0, feature_decay: float = 0.0
) -> Geometry:
    """Return diagonals D, (K,), for which the matrices of `relu_ce` are P D P, D and P D, up to scale."""
    n = _checked(counts, weight_decay, feature_decay)
    margins, others = torch.ones_like(n), len(n) - 1
    if weight_decay * feature_decay > 0:
        ratios = (len(n) * n / (others * weight_decay * feature_decay)).sqrt() / n.sum()
        margins = (others * (ratios - 1)).clamp(min=1).log()
    return Geometry(normalised(margins * n.sqrt()), normalised(margins / n.sqrt()), normalised(margins))


def gof_diagonals(counts: Sequence[int], weight_decay: float = 0.0, feature_decay: float = 0.0) -> Geometry:
    """Return the diagonals, (K,), of the matrices of `gof`, which are diagonal."""
    n = _checked(counts, weight_decay, feature_decay)
    logits = (1 - n.sum() * (weight_decay * feature_decay / n).sqrt()).clamp(min=0)
    return Geometry(normalised(logits * n.sqrt()), normalised(logits / n.sqrt()), normalised(logits))


def _checked(counts: Sequence[int], weight_decay: float, feature_decay: float) -> Tensor:
    _check(counts)
    if min(weight_decay, feature_decay) < 0:
        raise ValueError(f"decays must be >= 0, got {weight_decay} and {feature_decay}")
    return torch.tensor(counts, dtype=torch.float64)


def _check(counts: Sequence[int]) -> None:
    if len(counts) < 2 or min(counts) <= 0:
        raise ValueError(f"class counts must be at least 2 positive numbers, got {list(counts)}")


def seli_gram(counts: Sequence[int], of: Literal["weights", "means"]) -> Tensor:
    """One of the matrices of `seli`: W W^T or H^T H, (K, K), of unit Frobenius norm.

    Those of up to `REMEMBERED` classes are remembered; at 1000 classes each would hold 8 MiB.

    Raises:
        ValueError: see `seli`.

    """
    _check(counts)
    found = _remembered if len(counts) <= REMEMBERED else _seli
    return found(tuple(float(n) for n in counts), 0.5 if of == "weights" else -0.5)


@torch.inference_mode(False)  # tensors made in inference mode could not be used under autograd later
def _seli(counts: tuple[float, ...], power: float) -> Tensor:
    """A power of P D P off its kernel, of unit norm. P D P mixes classes of one count only by their sum.

    On the differences of k classes of one count it is that count. What is left acts on the normalised sums of
    the m groups of equal count, with P = I - s s^T/K, s = (sqrt(k)): an (m, m) problem.
    """
    n = torch.tensor(counts, dtype=torch.float64)
    distinct, group, sizes = torch.unique(n / n.mean(), return_inverse=True, return_counts=True)
    s = sizes.double().sqrt()
    quotient = torch.diag(distinct)
    quotient -= s.outer(s @ quotient / len(n))
    quotient -= (quotient @ s / len(n)).outer(s)
    values, vectors = torch.linalg.eigh(quotient)
    # The smallest eigenvalue belongs to s, the constant vector, and is exactly 0.
    values, vectors = values[1:].pow(power), vectors[:, 1:]
    of_groups = torch.matmul(vectors * values, vectors.T, out=quotient)
    of_groups.diagonal().sub_(distinct.pow(power))
    of_groups /= s.outer(s)
    of_classes = of_groups[group[:, None], group]
    of_classes.diagonal().add_(distinct.pow(power)[group])
    return of_classes.mul_(inverse_norm(of_classes))


_remembered = lru_cache(maxsize=32)(_seli)
