"""Optima with closed forms: free features with cross entropy, linear networks with squared error."""

from collections.abc import Sequence
from math import log, prod
from typing import NamedTuple

import torch
from scipy.optimize import brentq
from torch import Tensor

from deq_collapse.metrics.geometry import Geometry, normalised


class Frame(NamedTuple):
    """An orthogonal frame that solves squared error without a bias; every tensor is (K,), float64.

    Attributes:
        logits: W h_c at its own class, in [0, 1]; 0 for a vanished class.
        weights: ||w_c||^2 of the last layer.
        means: ||h_c||^2 of the features that the last layer receives.
    """

    logits: Tensor
    weights: Tensor
    means: Tensor

    @property
    def geometry(self) -> Geometry:
        """The Gram matrices, of unit norm."""
        return Geometry(*(normalised(torch.diag(v)) for v in (self.weights, self.means, self.logits)))


def cross_entropy_gap(num_classes: int, count: float, weight_decay: float, feature_decay: float) -> float:
    """Own logit minus any other at the optimum of `unconstrained_features` for balanced classes: the logits
    are gap (I - 11^T/K), W W^T = sqrt(n feature_decay / weight_decay) gap (I - 11^T/K) (after Zhu 2021).

    gap = max(0, log(1/t - (K - 1))), t = sqrt(n weight_decay feature_decay): 0 where n <= N^2 weight_decay
    feature_decay.

    Raises:
        ValueError: for fewer than 2 classes, or a count or decay that is not positive.
    """
    if num_classes < 2 or not min(count, weight_decay, feature_decay) > 0:
        raise ValueError("a gap needs at least 2 classes, and a count and decays > 0")
    t = (count * weight_decay * feature_decay) ** 0.5
    return log(1 / t - (num_classes - 1)) if t * num_classes < 1 else 0.0


def linear_network(counts: Sequence[float], weight_decays: Sequence[float], feature_decay: float) -> Frame:
    """The minimum of ||W_M ... W_1 H - Y||^2 / (2N) + sum_j weight_decays_j ||W_j||^2 / 2 + feature_decay
    ||H||^2 / 2, without bias, one H per sample, all widths >= K (Dang 2023).

    For M = 1 the singular values of W are w_c^2 = max(0, sqrt(n_c feature_decay / weight_decay) - N
    feature_decay): a class of n_c <= N^2 weight_decay feature_decay vanishes. For more layers the singular
    value s = z_c sqrt(n_c) is the larger root of s - sqrt(n_c) + N q s^((1-M)/(1+M)) = 0, q = (product of all
    decays)^(1/(M+1)), if that is better than s = 0.

    Raises:
        ValueError: for fewer than 2 counts, one not positive, no layer, or a decay that is not positive.
    """
    if len(counts) < 2 or not min(counts) > 0:
        raise ValueError(f"class counts must be at least 2 positive numbers, got {list(counts)}")
    if not weight_decays or not min(*weight_decays, feature_decay) > 0:
        raise ValueError("a linear network needs at least one layer, and decays > 0")
    factors = len(weight_decays) + 1
    q = (prod(weight_decays) * feature_decay) ** (1 / factors)
    n = torch.tensor(counts, dtype=torch.float64)
    s = n.new_tensor([_singular_value(float(c) ** 0.5, float(n.sum()) * q, factors) for c in counts])
    weights = (s ** (2 / factors)) * q / weight_decays[-1]
    logits = s / n.sqrt()
    return Frame(logits, weights, torch.where(weights > 0, logits.square() / weights, 0))


def _singular_value(root: float, penalty: float, factors: int) -> float:
    """argmin over s >= 0 of (s - root)^2 / 2 + penalty (factors / 2) s^(2/factors)."""
    power = 2 / factors

    def slope(s: float) -> float:
        return s - root + penalty * float(s ** (power - 1))

    # The slope decreases, then increases; its minimum is at `bend`.
    bend: float = ((1 - power) * penalty) ** (1 / (2 - power))
    if factors == 2:
        return max(0.0, root - penalty)
    if bend >= root or slope(bend) >= 0:
        return 0.0
    s = float(brentq(slope, bend, root, xtol=1e-15, rtol=1e-14))
    cost: float = (s - root) ** 2 / 2 + penalty * s**power / power
    return s if cost < root**2 / 2 else 0.0
