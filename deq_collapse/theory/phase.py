"""Phase diagrams of minority collapse: over the imbalance ratio and the decay, and over ratio and split."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from deq_collapse.metrics.functional import cosines
from deq_collapse.theory.peeled import (
    Peeled,
    layer_peeled,
    minority_cosine,
    step_counts,
    unconstrained_features,
)

LEAST_DECAY = 1e-7
VALUES = {"minority_cosine": "cosine of minority classifiers", "minority_angle": "smallest minority angle"}


class Dot(NamedTuple):
    """A trained network in the diagrams: its step, its effective decay and energies, its measured values, and
    those of the layer-peeled optimum for its counts and energies.
    """

    name: str
    refinement: str
    majority: int
    ratio: float
    decay: float
    energies: float
    minority_cosine: float
    optimal_cosine: float
    minority_angle: float
    optimal_angle: float


def effective_decay(weight: torch.Tensor, means: torch.Tensor, counts: Sequence[float]) -> float:
    """delta = N weight_decay feature_decay of the penalised form with a free bias whose optimum has a
    network's energies: those of classifier rows (K, d) centred over classes, and of class means (K, d)
    centred and averaged over samples, to match the decay of every sample's feature.
    """
    shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    W, M = weight - weight.mean(0), means - shares @ means
    energies = float(W.square().sum(1).mean()), float(shares @ M.square().sum(1))
    return len(counts) * layer_peeled(counts, *energies, "samples", bias=True).price ** 2


def smallest_angle(means: torch.Tensor, majority: int) -> float:
    """Smallest angle in degrees between the mean of a minority class (after the first `majority`) and any
    other mean, from the Gram matrix of centred means; nan if a mean is 0.
    """
    own = torch.eye(len(means), dtype=torch.bool)
    lengths = means.diagonal().clamp(min=0)
    if float(lengths.min()) <= 1e-5 * float(lengths.max()):
        return float("nan")
    largest = cosines(means).masked_fill(own, -1)[majority:].max().clamp(-1, 1)
    return float(torch.rad2deg(largest.arccos()))


def phase_table(
    num_classes: int,
    majority: int,
    weight_energy: float,
    feature_energy: float,
    largest: float,
    points: int,
) -> pd.DataFrame:
    """Values over two planes: `decay` (R and delta = N weight_decay feature_decay, penalised form) and
    `split` (R and K_A at fixed energies, layer-peeled form).

    Raises:
        ValueError: for a split or energies that define no program.
    """
    ratios = np.geomspace(1, largest, points)
    # Beyond delta = n_A / N <= 1 / K_A nothing is learnt.
    decays = np.geomspace(LEAST_DECAY, 1 / majority, points)
    rows = []
    for ratio, decay in product(ratios, decays):
        counts = step_counts(num_classes, majority, ratio)
        root = (decay / sum(counts)) ** 0.5
        rows.append(("decay", ratio, decay, majority, unconstrained_features(counts, root, root)))
    for split, ratio in product(range(1, num_classes - 1), ratios):
        counts = step_counts(num_classes, split, ratio)
        rows.append(("split", ratio, np.nan, split, layer_peeled(counts, weight_energy, feature_energy)))
    table = pd.DataFrame([(*row[:4], *_values(row[4], row[3])) for row in rows])
    table.columns = pd.Index(["plane", "ratio", "decay", "majority", *VALUES])
    return table


def _values(found: Peeled, majority: int) -> tuple[float, float]:
    return minority_cosine(found.weights, majority), smallest_angle(found.means, majority)


def boundary(num_classes: int, majority: int, ratios: Sequence[float]) -> list[float]:
    """The exact delta = n_B / N from which on minority classifiers coincide."""
    return [1 / (majority * ratio + num_classes - majority) for ratio in ratios]
