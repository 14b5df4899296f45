"""The layer-peeled model (Fang, He, Long & Su 2021) and its penalised form, convex in the logits."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import cvxpy as cp
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deq_collapse.theory.convex import run, solve
from deq_collapse.theory.factors import solve_by_factors
from deq_collapse.theory.loss import log_cross_entropy

Weighting = Literal["classes", "samples"]
"""Whether the energy of features is a mean over classes (Fang 2021) or over samples (Thrampoulidis 2022)."""

SMALL_LOSS = 1e-4
"""Losses below this are minimised by their logarithm, which the solver can still distinguish."""
FEW_GROUPS = 3
"""With more different counts, the program is too large for an interior-point method."""
VANISHED = 3e-3
"""A classifier row shorter than this share of the longest is 0 up to the solver's accuracy."""


class Peeled(NamedTuple):
    """The optimum of a program; tensors are float64, classes in the order of the counts.

    Attributes:
        loss: cross entropy, mean over samples, without penalties.
        price: decrease of the loss per unit of || Z diag(sqrt(v)) ||_*; 0 if Z is 0. In the penalised form it
            is sqrt(weight_decay feature_decay N / K).
        logits: W H, (K, K): column c holds the logits of class c.
        weights: W W^T, (K, K).
        means: H^T H, (K, K).
        bias: of the logits, (K,); zeros without one.
    """

    loss: float
    price: float
    logits: Tensor
    weights: Tensor
    means: Tensor
    bias: Tensor


def step_counts(num_classes: int, majority: int, ratio: float) -> tuple[float, ...]:
    """Counts of a step imbalance up to scale: `majority` classes of `ratio`, the others of 1.

    Raises:
        ValueError: unless 0 < majority < num_classes and ratio >= 1.
    """
    if not 0 < majority < num_classes or ratio < 1:
        raise ValueError(
            f"a step needs 0 < majority < {num_classes} and a ratio >= 1, got {majority} and {ratio:g}"
        )
    return (float(ratio),) * majority + (1.0,) * (num_classes - majority)


def layer_peeled(
    counts: Sequence[float],
    weight_energy: float,
    feature_energy: float,
    weighting: Weighting = "classes",
    bias: bool = False,
) -> Peeled:
    """Cross entropy under budgets of energy: min (1/N) sum_c n_c CE(W h_c + b, c) with mean ||w_c||^2 <= E_W
    and the mean of ||h_c||^2, over classes or samples, <= E_H; d >= K-1. Fang's model has b = 0; with a free
    b the optimal features are centred.

    Solved as min over Z = W H with || Z diag(sqrt(v)) ||_* <= K sqrt(E_W E_H), v_c = 1 or n_c K / N. Classes
    with equal counts are exchangeable, also in the optimum, which is unique: the program has one number per
    count and a matrix of counts by counts. For more than `FEW_GROUPS` different counts it is solved by
    descent on W and H, verified by its lower bound.

    Raises:
        ValueError: for fewer than 2 counts, one not positive, an energy not positive, or a solver that fails.
    """
    _check(counts, weight_energy, feature_energy)
    budget = len(counts) * (weight_energy * feature_energy) ** 0.5
    roots = np.sqrt(_class_weights(counts, weighting))
    centred = np.eye(len(counts)) - 1 / len(counts)
    scale = (weight_energy / feature_energy) ** 0.5
    if len(set(counts)) > FEW_GROUPS:
        return _peeled(counts, *solve_by_factors(counts, roots, budget, bias), scale, weighting)
    gap = budget / np.linalg.norm(centred * roots, "nuc")  # of the simplex ETF, which is feasible
    small = (len(counts) - 1) * np.exp(-gap) < SMALL_LOSS
    logits, shift = solve(counts, roots, "tail" if small else "budget", budget, bias)
    return _peeled(counts, logits, shift, scale, weighting)


def unconstrained_features(counts: Sequence[float], weight_decay: float, feature_decay: float) -> Peeled:
    """Cross entropy with decay: min (1/N) sum_i CE(W h_i, y_i) + weight_decay ||W||^2 / 2 + feature_decay
    ||H||^2 / 2 over W and one feature per sample; d >= K-1.

    Solved as min over Z with the penalty sqrt(weight_decay feature_decay) || Z diag(sqrt(n)) ||_*. Classes
    with n_c <= N^2 weight_decay feature_decay share one classifier row.

    Raises:
        ValueError: for fewer than 2 counts, one not positive, a decay not positive, or a solver that fails.
    """
    _check(counts, weight_decay, feature_decay)
    price = (weight_decay * feature_decay) ** 0.5
    mean, k = float(np.mean(counts)), len(counts)
    roots = np.sqrt(np.asarray(counts, dtype=float))
    at_zero = (np.eye(k) - 1 / k) * roots / roots.dot(roots)  # the gradient at Z = 0, over diag(sqrt(n))
    if np.linalg.norm(at_zero, 2) <= price:
        return _peeled(counts, np.zeros((k, k)), np.zeros(k), 1.0, "samples")
    logits, shift = solve(counts, price * roots, "penalty")
    return _peeled(counts, logits, shift, (mean * feature_decay / weight_decay) ** 0.5, "samples")


def full_layer_peeled(
    counts: Sequence[float], weight_energy: float, feature_energy: float, weighting: Weighting = "classes"
) -> Peeled:
    """`layer_peeled` without its reductions: Fang's semidefinite program over the (2K, 2K) Gram matrix of
    features and classifier rows together. It is slower, and used to check the reduced program.

    Raises:
        ValueError: see `layer_peeled`.
    """
    _check(counts, weight_energy, feature_energy)
    k, n = len(counts), np.asarray(counts, dtype=float)
    gram = cp.Variable((2 * k, 2 * k), PSD=True)
    logits = gram[k:, :k]
    losses = cp.hstack([cp.log_sum_exp(logits[:, c]) - logits[c, c] for c in range(k)])
    features = cp.multiply(_class_weights(counts, weighting), cp.diag(gram[:k, :k]))
    budgets = [cp.sum(features) <= k * feature_energy, cp.trace(gram[k:, k:]) <= k * weight_energy]
    program = cp.Problem(cp.Minimize(n / n.sum() @ losses), budgets)
    run(program)
    value = np.asarray(gram.value)
    z, loss, gradient, roots = _at(counts, value[k:, :k], np.zeros(k), weighting)
    price = -float((gradient * z).sum() / torch.linalg.matrix_norm(z * roots, "nuc"))
    return Peeled(loss, price, z, *map(torch.tensor, (value[k:, k:], value[:k, :k], np.zeros(k))))


def minority_cosine(weights: Tensor, majority: int) -> float:
    """Mean cosine between pairs of classifier rows after the first `majority`; 1 if they coincide, nan if
    they vanish or there is no pair (Fang 2021).
    """
    block = weights[majority:, majority:]
    lengths = block.diagonal().clamp(min=0).sqrt()
    if len(block) < 2 or float(lengths.min()) <= VANISHED * float(weights.diagonal().max()) ** 0.5:
        return float("nan")
    cosines = block / lengths.outer(lengths)
    return float((cosines.sum() - len(block)) / (len(block) * (len(block) - 1)))


def lower_bound(peeled: Peeled, counts: Sequence[float], weighting: Weighting = "classes") -> float:
    """A lower bound on the loss of every point within the budgets of the optimum, whatever the solver's
    accuracy: loss - <G, Z> - ||G diag(1/sqrt(v))||_2 ||Z diag(sqrt(v))||_*, where G is the gradient of the
    loss with respect to the logits. For an optimum with a bias it bounds the points with that bias.
    """
    z, loss, gradient, roots = _at(counts, peeled.logits.numpy(), peeled.bias.numpy(), weighting)
    norm = torch.linalg.matrix_norm(z * roots, "nuc")
    dual = torch.linalg.matrix_norm(gradient / roots, 2)
    return loss - float((gradient * z).sum() + dual * norm)


def _check(counts: Sequence[float], *positive: float) -> None:
    if len(counts) < 2 or not min(counts) > 0:
        raise ValueError(f"class counts must be at least 2 positive numbers, got {list(counts)}")
    if not min(positive) > 0:
        raise ValueError(f"energies and decays must be > 0, got {' and '.join(f'{v:g}' for v in positive)}")


def _class_weights(counts: Sequence[float], weighting: Weighting) -> NDArray[np.float64]:
    n = np.asarray(counts, dtype=float)
    return n / n.mean() if weighting == "samples" else np.ones_like(n)


def _peeled(
    counts: Sequence[float],
    logits: NDArray[np.float64],
    bias: NDArray[np.float64],
    scale: float,
    weighting: Weighting,
) -> Peeled:
    """Splits the logits into factors with energies of the ratio scale^2 = E_W / E_H."""
    z, loss, gradient, roots = _at(counts, logits, bias, weighting)
    left, values, right = torch.linalg.svd(z * roots)
    weights = scale * (left * values) @ left.T
    means = (right.T * values) @ right / roots.outer(roots) / scale
    price = -float((gradient * z).sum() / values.sum()) if values.any() else 0.0
    return Peeled(loss, price, z, weights, means, torch.tensor(bias))


def _at(
    counts: Sequence[float],
    logits: NDArray[np.float64],
    bias: NDArray[np.float64],
    weighting: Weighting,
) -> tuple[Tensor, float, Tensor, Tensor]:
    """The logits as a tensor, the loss with the bias, its gradient in the logits, and sqrt(v)."""
    z = torch.tensor(logits, requires_grad=True)
    loss = log_cross_entropy(z + torch.tensor(bias)[:, None], counts).exp()
    (gradient,) = torch.autograd.grad(loss, z)
    roots = torch.from_numpy(_class_weights(counts, weighting)).sqrt()
    return z.detach(), float(loss.detach()), gradient, roots
