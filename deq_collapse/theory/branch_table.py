"""Both peeled branches over K_A and R: losses, collapse, geometry, and where the equilibrium is lower."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from deq_collapse.metrics import functional
from deq_collapse.metrics.geometry import gram_distance, seli
from deq_collapse.theory.branches import (
    STARTS,
    Budgets,
    equilibrium_branch,
    equilibrium_cost,
    explicit_branch,
)
from deq_collapse.theory.peeled import Peeled, layer_peeled, lower_bound, minority_cosine, step_counts

Bound = Literal["operator", "energy"]
BRANCHES = ("explicit", "equilibrium")
PANELS = {
    "loss": "Loss",
    "minority_cosine": "Cosine of minority classifiers",
    "nc2_etf_means": "NC2: class means to the ETF",
    "nc2_etf_weights": "NC2: classifier to the ETF",
    "nc3": "NC3: classifier to class means",
    "seli_means": "Class means to SELI",
    "seli_weights": "Classifier to SELI",
}


def branch_table(
    num_classes: int,
    majorities: Sequence[int],
    ratios: Sequence[float],
    budgets: Budgets,
    bound: Bound,
    starts: int = STARTS,
) -> pd.DataFrame:
    """One row per K_A, R and branch; NC1 is 0 in each, because a class has one feature.

    Columns: majority, ratio, branch; loss; bound, a lower bound on the program's loss; residual, of the
    optimality conditions (for `operator`, loss minus bound); the geometry of W and H; rank of H.

    Raises:
        ValueError: for majorities or ratios that define no step, or budgets that are not positive.
    """
    if not 0 < budgets.radius < 1 or not min(budgets[:3]) > 0:
        raise ValueError("energies must be > 0 and the radius of the equilibrium between 0 and 1")
    rows = []
    for majority in majorities:
        for ratio in ratios:
            counts = step_counts(num_classes, majority, ratio)
            solve = _by_operator if bound == "operator" else _by_energy
            for branch, loss, floor, residual, W, H in solve(counts, budgets, starts):
                row = {"majority": majority, "ratio": ratio, "branch": branch, "loss": loss}
                rows.append(
                    row | {"bound": floor, "residual": residual} | geometry_of(W, H, counts, majority)
                )
    return pd.DataFrame(rows)


Row = tuple[str, float, float, float, Tensor, Tensor]


def _by_operator(counts: Sequence[float], budgets: Budgets, starts: int) -> Iterator[Row]:
    """||V||_2^2, ||U||_2^2 <= E_V: the layer-peeled model with E_H = E_V E_0, / (1 - rho)^2 for the DEQ."""
    for branch in BRANCHES:
        gain = 1.0 if branch == "explicit" else 1 / (1 - budgets.radius) ** 2
        found = layer_peeled(counts, budgets.weights, budgets.maps * budgets.inputs * gain)
        floor = lower_bound(found, counts)
        yield branch, found.loss, floor, found.loss - floor, *_factors(found)


def _by_energy(counts: Sequence[float], budgets: Budgets, starts: int) -> Iterator[Row]:
    """||V||_F^2 <= K E_V against ||A||_F^2 + ||U||_F^2 <= K E_V; the lower bound lets every direction be as
    long as one with all the energy.
    """
    energy = torch.tensor(len(counts) * budgets.maps)
    for branch in BRANCHES:
        if branch == "explicit":
            found, square = explicit_branch(counts, budgets, starts), float(energy)
        else:
            found = equilibrium_branch(counts, budgets, starts)
            square = _largest_square(float(energy), budgets.radius)
        floor = lower_bound(layer_peeled(counts, budgets.weights, budgets.inputs * square), counts)
        yield branch, found.loss, max(floor, 0.0), found.residual, found.classifier, found.features


def _largest_square(energy: float, radius: float) -> float:
    """m^2 with equilibrium_cost(m) = energy."""
    if energy <= float(equilibrium_cost(radius)(torch.tensor((radius / (1 - radius)) ** 0.5))):
        return energy / (1 - energy)
    return (energy - radius**2) / (1 - radius) ** 2


def _factors(found: Peeled) -> tuple[Tensor, Tensor]:
    """Rows of W (K, d) and columns of H (d, K), up to a rotation, of an optimum."""
    left, values, right = torch.linalg.svd(found.logits)
    # W = c U S^(1/2): c^2 is the ratio of the traces of both Gram matrices.
    c = (found.weights.trace() / found.means.trace()) ** 0.25
    return left * values.sqrt() * c, (right.T * values.sqrt() / c).T


def geometry_of(W: Tensor, H: Tensor, counts: Sequence[float], majority: int) -> dict[str, float]:
    """Measures of class-level features; NC1 is 0, because a class has one feature."""
    means = (H - H.mean(1, keepdim=True)).T
    target = seli([round(1e6 * n) for n in counts])
    values = torch.linalg.svdvals(H)
    return {
        "minority_cosine": minority_cosine(W @ W.T, majority),
        "nc2_etf_means": float(functional.etf_distance(means @ means.T)),
        "nc2_etf_weights": float(functional.etf_distance(W @ W.T)),
        "nc3": float(functional.nc3(W, means)),
        "seli_means": float(gram_distance(means @ means.T, target.means)),
        "seli_weights": float(gram_distance(W @ W.T, target.weights)),
        "rank": int((values > 1e-3 * values[0]).sum()),
    }


def ahead(table: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """For each value, the number of points at which the equilibrium is lower by more than rounding, and the
    number of points. Minority cosines count only for R > 1; otherwise no class is a minority.
    """
    wide = table.pivot(index=["majority", "ratio"], columns="branch")
    found = {}
    for name in PANELS:
        explicit, equilibrium = wide[name]["explicit"], wide[name]["equilibrium"]
        known = explicit.notna() & equilibrium.notna()
        if name == "minority_cosine":
            known &= wide.index.get_level_values("ratio") > 1
        lower = equilibrium < explicit - 1e-6 * (1 + explicit.abs()) * (name != "loss")
        found[name] = (int((lower & known).sum()), int(known.sum()))
    return found


def ratios_up_to(largest: float, decades: float) -> list[float]:
    """Ratios from 1 up to at most `largest`, in steps of `decades` decades."""
    return [float(r) for r in 10 ** np.arange(0, np.log10(largest) + 1e-9, decades)]
