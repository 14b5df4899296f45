"""Descent on unconstrained-feature models, which train only W and one free feature per class.

One feature per class is enough: the losses and the decay are convex in a feature, so samples of a class may
share their mean (Jensen).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
"""Class-level logits (K, K), a column per class, and counts (K,) to a scalar, a mean over samples."""


class Model(NamedTuple):
    """An unconstrained-feature model.

    Attributes:
        counts: n_c, (K,).
        weight_decays: of every layer, the classifier last.
        feature_decay: of the features, one per sample.
        loss: of the logits.
        bias: whether the classifier has a bias, without decay.
    """

    counts: Sequence[float]
    weight_decays: Sequence[float]
    feature_decay: float
    loss: Loss
    bias: bool = False


class Point(NamedTuple):
    """A point of descent: W W^T, H^T H of the classifier's input, and W H."""

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
    """Mean over samples of sum_j max(0, 1 - (own logit - logit j))^2: as the decays vanish, its optimum has
    the maximal margins that define SELI, with an error linear in the decays; for cross entropy the error is
    logarithmic.
    """
    gaps = functional.relu(1 - logits.diagonal() + logits).square().sum(0) - 1
    return (counts / counts.sum()) @ gaps


def descend(
    model: Model,
    dim: int,
    rate: float,
    steps: int,
    momentum: float = 0.9,
    seed: int = 0,
    watched: int = 200,
) -> dict[int, Point]:
    """Gradient descent with Nesterov's momentum at a fixed rate, from random orthogonal factors, in float64.

    In a network of two or more layers, a class that is 0 in every layer is a local minimum: a start close to
    it stays there.

    Args:
        model: the model to minimise.
        dim: d, the width of every layer.
        rate: learning rate.
        steps: number of steps.
        momentum: in [0, 1).
        seed: of the start.
        watched: largest number of points to keep.

    Returns:
        Points by the number of steps taken, equally spaced in its logarithm; the last is that of all steps.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor(model.counts, dtype=torch.float64)
    k, layers = len(counts), len(model.weight_decays)
    # Features are scaled by sqrt(n_c), which turns their decay into that of a class and conditions the
    # problem.
    shapes = [(dim, k), *[(dim, dim)] * (layers - 1), (k, dim)]
    factors = [nn.init.orthogonal_(torch.empty(s, dtype=torch.float64), generator=generator) for s in shapes]
    bias = torch.zeros(k, 1, dtype=torch.float64)
    decays = (model.feature_decay, *model.weight_decays)
    groups = [{"params": [f], "weight_decay": d} for f, d in zip(factors, decays, strict=True)]
    if model.bias:
        groups.append({"params": [bias], "weight_decay": 0.0})
    optimiser = torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)
    for group in optimiser.param_groups:
        group["params"][0].requires_grad_()

    def received() -> Tensor:
        features = factors[0] / counts.sqrt()
        for layer in factors[1:layers]:
            features = layer @ features
        return features

    kept = set(np.geomspace(1, steps, watched).round().astype(int).tolist())
    points = {}
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        model.loss(factors[-1] @ received() + bias, counts).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step in kept:
            with torch.no_grad():
                w, h = factors[-1], received()
                points[step] = Point(w @ w.T, h.T @ h, w @ h)
    return points
