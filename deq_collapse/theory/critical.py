"""The imbalance ratio at which minority classifiers coincide, in the layer-peeled model (Fang 2021)."""

from math import exp, inf, log
from sys import float_info

from scipy.optimize import brentq

from deq_collapse.theory.peeled import Weighting, layer_peeled, step_counts

LARGEST = 1e8
"""Largest ratio in the search for a critical one."""


def critical_ratio(
    num_classes: int,
    majority: int,
    weight_energy: float,
    feature_energy: float,
    weighting: Weighting = "classes",
) -> float:
    """R0: minority classifiers of the optimum coincide for R >= R0 and are distinct below; found to a
    relative 1e-4 by bracketing. inf if it is above 1e8.

    At the optimum they coincide exactly when the gain in loss from separating them, n_B / (N sqrt(v_B)) per
    unit of nuclear norm, is at most the price of the budget elsewhere.

    Raises:
        ValueError: for fewer than 2 minority classes, or a split or energies that are not positive.
    """
    if num_classes - majority < 2:
        raise ValueError(f"a critical ratio needs 2 minority classes, got {num_classes - majority}")

    def excess(log_ratio: float) -> float:
        ratio = exp(log_ratio)
        counts = step_counts(num_classes, majority, ratio)
        share = 1 / sum(counts)
        root = (num_classes * share) ** 0.5 if weighting == "samples" else 1.0
        price = layer_peeled(counts, weight_energy, feature_energy, weighting).price
        return log(max(price * root / share, float_info.min))  # of large energies the loss may underflow

    low, high = 0.0, log(2)
    while excess(high) < 0:
        if high == log(LARGEST):
            return inf
        low, high = high, min(2 * high, log(LARGEST))
    return exp(float(brentq(excess, low, high, xtol=1e-7)))
