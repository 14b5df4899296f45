"""Descent on unconstrained-feature models: W and one free feature per class are all there is to train.

One feature per class is enough: losses here are convex in a feature and so is its decay, so samples of a
class may share their mean (Jensen).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from deq_collapse.theory.minimise import minimise

Loss = Callable[[Tensor, Tensor], Tensor]
"""Class-level logits (K, K), a column per class, and counts (K,) to a scalar, a mean over samples."""


class Model(NamedTuple):
    """An unconstrained-feature model.

    Attributes:
        counts: n_c, (K,).
        weight_decays: of every layer, the classifier last.
        feature_decay: of the features, one per sample.
        loss: of the logits.
        bias: whether the classifier has one, without decay.
    """

    counts: Sequence[float]
    weight_decays: Sequence[float]
    feature_decay: float
    loss: Loss
    bias: bool = False


class Point(NamedTuple):
    """Where descent is: W W^T, H^T H of what the classifier receives, and W H."""

    weights: Tensor
    means: Tensor
    logits: Tensor


def cross_entropy(logits: Tensor, counts: Tensor) -> Tensor:
    """Mean over samples of cross entropy."""
    return (counts / counts.sum()) @ (logits.logsumexp(0) - logits.diagonal())


def squared_error(logits: Tensor, counts: Tensor) -> Tensor:
    """||W H - Y||^2 / (2N), Y one-hot."""
    target = torch.eye(len(counts), dtype=logits.dtype)
    return (counts / counts.sum()) @ (logits - target).square().sum(0) / 2


def squared_hinge(logits: Tensor, counts: Tensor) -> Tensor:
    """Mean over samples of sum_j max(0, 1 - (own logit - logit j))^2: as the decays vanish its optimum has
    the maximal margins that define SELI, with an error linear in them; that of cross entropy is logarithmic.
    """
    gaps = functional.relu(1 - logits.diagonal() + logits).square().sum(0) - 1
    return (counts / counts.sum()) @ gaps


def descend(model: Model, dim: int, steps: int = 2000, seed: int = 0) -> list[Point]:
    """L-BFGS from random orthogonal factors; the point after every step, in float64.

    In a network of two layers or more a class that is 0 in every layer is a local minimum: a start close to
    it stays there.

    Args:
        model: what is minimised.
        dim: d, the width of every layer.
        steps: at most.
        seed: of the start.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor(model.counts, dtype=torch.float64)
    k = len(counts)
    # Features are scaled by sqrt(n_c), which makes their decay that of a class and conditions the problem.
    shapes = [(dim, k), *[(dim, dim)] * (len(model.weight_decays) - 1), (k, dim)]
    start = [nn.init.orthogonal_(torch.empty(s, dtype=torch.float64), generator=generator) for s in shapes]
    start += [torch.zeros(k, 1, dtype=torch.float64)] * model.bias

    def received(point: Sequence[Tensor]) -> Tensor:
        features = point[0] / counts.sqrt()
        for layer in point[1 : len(model.weight_decays)]:
            features = layer @ features
        return features

    def objective(point: Sequence[Tensor]) -> Tensor:
        logits = point[len(model.weight_decays)] @ received(point)
        decay = torch.zeros((), dtype=torch.float64)
        for rate, factor in zip((model.feature_decay, *model.weight_decays), point, strict=False):
            decay = decay + rate * factor.square().sum() / 2
        return model.loss(logits + point[-1] if model.bias else logits, counts) + decay

    points: list[Point] = []

    def watch(point: Sequence[Tensor]) -> None:
        w, h = point[len(model.weight_decays)], received(point)
        points.append(Point(w @ w.T, h.T @ h, w @ h))

    minimise(objective, start, steps, watch)
    return points
