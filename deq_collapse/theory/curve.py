"""Minority cosine against the imbalance ratio, and where it reaches 1 (Fang 2021)."""

from collections.abc import Iterable, Sequence
from math import isfinite

import numpy as np
import pandas as pd

from deq_collapse.theory.critical import critical_ratio
from deq_collapse.theory.peeled import full_layer_peeled, layer_peeled, minority_cosine, step_counts

COLUMNS = ("majority", "program", "ratio", "minority_cosine", "loss")


CHECKED = 4
"""Number of ratios, besides 1, at which the full program is also solved."""


def curve_table(
    num_classes: int,
    majorities: Sequence[int],
    weight_energy: float,
    feature_energy: float,
    largest: float = 1e4,
    points: int = 81,
) -> pd.DataFrame:
    """One row per optimum: of the reduced program on a fine grid of R, of the full one on a coarse grid, and
    at R0 (`program` is "critical"), unless that is infinite.

    Raises:
        ValueError: for a majority that leaves fewer than 2 minority classes, or energies that are not
            positive.
    """
    rows = []
    for majority in majorities:
        critical = critical_ratio(num_classes, majority, weight_energy, feature_energy)
        grids: dict[str, Iterable[float]] = {
            "reduced": np.geomspace(1, largest, points),
            "full": np.geomspace(1, largest, CHECKED + 1),
            "critical": [critical] if isfinite(critical) else [],
        }
        for program, ratios in grids.items():
            solve = full_layer_peeled if program == "full" else layer_peeled
            for ratio in ratios:
                found = solve(step_counts(num_classes, majority, ratio), weight_energy, feature_energy)
                rows.append((majority, program, ratio, minority_cosine(found.weights, majority), found.loss))
    return pd.DataFrame(rows, columns=list(COLUMNS))
