"""A finished run compared with theory: its distances to every target, and its place in the phase diagrams."""

import numpy as np
import pandas as pd

from deq_collapse.metrics.geometry import normalised
from deq_collapse.runs.beside import GRAMS, Beside
from deq_collapse.runs.finished import FinishedRun
from deq_collapse.theory.compare import Comparison, compare
from deq_collapse.theory.phase import Dot, effective_decay, smallest_angle


def beside(run: FinishedRun, found: Comparison) -> Beside:
    """The parts of a comparison that a report shows."""
    shared: dict[str, str | float] = {
        "run": run.name,
        "weight_energy": found.weight_energy,
        "feature_energy": found.feature_energy,
        "loss_of_means": found.loss,
        "optimal_loss": found.optimum.loss,
    }
    for part, (measured, ideal) in found.minority_cosines.items():
        shared |= {f"minority_cos_{part}": measured, f"minority_cos_{part}_optimal": ideal}
    rows = [
        {**shared, "target": target, **dict(zip(GRAMS, distances, strict=True))}
        for target, distances in found.distances.items()
    ]
    geometries = {"this run": found.measured, **found.targets, "not centred": found.raw}
    grams = {
        name: np.stack([normalised(gram).numpy() for gram in geometry])
        for name, geometry in geometries.items()
    }
    return Beside(run.name, run.refinement, run.majority, pd.DataFrame(rows), grams)


def dot(run: FinishedRun, num_classes: int) -> Dot:
    """A run's point in the phase diagrams, with its majority classes first."""
    order = [*run.majority, *(c for c in range(num_classes) if c not in set(run.majority))]
    counts, weight, means = [run.counts[c] for c in order], run.weight[order], run.means[order]
    found = compare(weight, run.bias[order], means, counts, range(len(run.majority)))
    return Dot(
        run.name,
        run.refinement,
        len(run.majority),
        max(counts) / min(counts),
        effective_decay(weight, means, counts),
        found.weight_energy * found.feature_energy,
        *found.minority_cosines["weights"],
        *(smallest_angle(gram, len(run.majority)) for gram in (found.measured.means, found.optimum.means)),
    )
