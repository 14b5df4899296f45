"""Cosines of minority classes by imbalance ratio, and predictions of the layer-peeled model (Fang 2021)."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from deq_collapse.analysis.angles import cosine_gram
from deq_collapse.analysis.arrangement import Cell
from deq_collapse.analysis.imbalance import imbalance_ratio, is_balanced
from deq_collapse.runs.record import Run

PARTS = ("weights", "means")
COLUMNS = ("majority", "refinement", "ratio", "setting", "name", "energy", *PARTS)


def minority_table(cells: Mapping[str, Cell]) -> pd.DataFrame:
    """One row per run and number of majority classes K_A: its ratio R, the mean cosines over pairs of
    minority classes of classifier rows and of centred class means of the training split, and its energy
    sqrt(E_W E_H), where E is the mean over classes of squared lengths, both centred.

    A run under step imbalance has one row. A balanced run has a row for every K_A of the other runs, for the
    same classes, although they are not minority classes in it. Fewer than 2 minority classes have no cosine,
    and no row.
    """
    runs = [(setting, run) for setting, cell in cells.items() for runs in cell.values() for run in runs]
    splits = {len(run.majority): run.majority for _, run in runs if run.majority}
    rows = []
    for setting, run in runs:
        for majority in [run.majority] if run.majority else splits.values() if is_balanced(run) else []:
            if len(run.class_counts) - len(majority) >= 2:
                place = (len(majority), run.refinement, imbalance_ratio(run), setting, run.name)
                rows.append((*place, _energy(run), *_cosines(run, majority)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def theory_table(table: pd.DataFrame, num_classes: int) -> pd.DataFrame | None:
    """Predictions of the layer-peeled model at the energies of the networks (geometric mean over seeds): for
    each setting and refinement the minority cosines, and the critical ratio R0 at that energy; None without
    cvxpy.
    """
    if importlib.util.find_spec("cvxpy") is None:
        return None
    rows = []
    for keys, seeds in table.groupby(["majority", "refinement", "setting"], sort=False):
        ratio, energies = float(seeds["ratio"].iloc[0]), seeds["energy"].to_numpy(dtype=float)
        if np.isfinite(energies).all() and (energies > 0).all():
            energy = float(f"{np.exp(np.log(energies).mean()):.3g}")
            rows.append((*keys, ratio, *_optimum(num_classes, int(seeds["majority"].iloc[0]), ratio, energy)))
    return pd.DataFrame(rows, columns=["majority", "refinement", "setting", "ratio", *PARTS, "critical"])


@lru_cache(maxsize=256)
def _optimum(num_classes: int, majority: int, ratio: float, energy: float) -> tuple[float, float, float]:
    """Cosines of rows and of means at the optimum, and R0; only the product of the energies matters."""
    from deq_collapse.theory.critical import critical_ratio
    from deq_collapse.theory.peeled import layer_peeled, minority_cosine, step_counts

    found = layer_peeled(step_counts(num_classes, majority, ratio), energy, energy)
    critical = critical_ratio(num_classes, majority, energy, energy)
    return minority_cosine(found.weights, majority), minority_cosine(found.means, majority), critical


def _energy(run: Run) -> float:
    centred = [
        rows - rows.mean(axis=0)
        for rows in (run.geometry.weight.astype(float), run.geometry.class_means_train.astype(float))
    ]
    return math.sqrt(math.prod(float(np.square(rows).sum(axis=1).mean()) for rows in centred))


def _cosines(run: Run, majority: Sequence[int]) -> Iterator[float]:
    """Mean over pairs of minority classes, of classifier rows (not centred) and of centred class means."""
    minority = np.setdiff1d(np.arange(len(run.class_counts)), majority)
    means = np.asarray(run.geometry.class_means_train, dtype=float)
    for rows in (run.geometry.weight, means - means.mean(axis=0)):
        block = cosine_gram(rows)[np.ix_(minority, minority)]
        yield float(block[~np.eye(len(block), dtype=bool)].mean())
