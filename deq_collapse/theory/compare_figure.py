"""Trained networks beside the theory as figures, and as rows of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from deq_collapse.metrics.geometry import gof, normalised, seli, simplex_etf_gram
from deq_collapse.study.style import INK, RC, Series, series
from deq_collapse.theory.compare import GRAMS, TARGETS, Comparison
from deq_collapse.theory.runs import FinishedRun

TITLES = {"weights": "classifier rows", "means": "class means", "logits": "logits"}
MARKS = ("o", "s", "D", "v", "P", "X", "^")


def comparison_rows(run: FinishedRun, found: Comparison) -> list[dict[str, Any]]:
    """One row per target: the distances, and what the layer-peeled optimum was solved for."""
    shared = {
        "run": run.name,
        "weight_energy": found.weight_energy,
        "feature_energy": found.feature_energy,
        "loss_of_means": found.loss,
        "optimal_loss": found.optimum.loss,
    }
    for part, (measured, ideal) in found.minority_cosines.items():
        shared |= {f"minority_cos_{part}": measured, f"minority_cos_{part}_optimal": ideal}
    return [
        {**shared, "target": target, **dict(zip(GRAMS, found.distances[target], strict=True))}
        for target in TARGETS
    ]


def beside_figure(run: FinishedRun, found: Comparison) -> Figure:
    """Normalised Gram matrices of one run beside those of every target, majority classes first; under each
    its distance to the run's.
    """
    count = len(run.counts)
    order = [*run.majority, *(c for c in range(count) if c not in set(run.majority))]
    etf = simplex_etf_gram(count)
    means_to_centre = (run.weight @ run.weight.T, run.means @ run.means.T, run.weight @ run.means.T)
    grams: dict[str, Sequence[Tensor]] = {
        "this run": found.measured,
        "ETF": (etf, etf, etf),
        "SELI": seli(run.counts),
        "layer-peeled": (found.optimum.weights, found.optimum.means, found.optimum.logits),
        "GOF": gof(run.counts),
        "not centred": means_to_centre,
    }
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(9.4, 5.2))
        grid: Any = figure.subplots(
            len(GRAMS), len(grams), gridspec_kw={"left": 0.04, "right": 0.99, "top": 0.93, "bottom": 0.05}
        )
        for row, part in enumerate(GRAMS):
            shown = [normalised(matrices[row])[order][:, order].numpy() for matrices in grams.values()]
            limit = max(float(np.abs(matrix).max()) for matrix in shown)
            for column, (name, matrix) in enumerate(zip(grams, shown, strict=True)):
                axes: Axes = grid[row, column]
                axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none")
                axes.set_xticks([])
                axes.set_yticks([])
                if run.majority:
                    axes.axhline(len(run.majority) - 0.5, color=INK, linewidth=0.7)
                    axes.axvline(len(run.majority) - 0.5, color=INK, linewidth=0.7)
                if row == 0:
                    axes.set_title(name, fontsize=9)
                if column == 0:
                    axes.set_ylabel(TITLES[part])
                if name in found.distances:
                    axes.set_xlabel(f"distance {found.distances[name][row]:.2f}", fontsize=8, labelpad=3)
    return figure


def distance_panel(
    compared: Mapping[FinishedRun, Comparison] | Sequence[tuple[FinishedRun, Comparison]],
) -> Figure:
    """Distances of several runs to every target, a panel per Gram matrix; for a report."""
    pairs = list(compared.items() if isinstance(compared, Mapping) else compared)
    height = 1.0 + 0.36 * len(TARGETS) + 0.19 * len(pairs)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(7.6, height))
        room = {
            "left": 0.13,
            "right": 0.98,
            "top": 1 - 0.3 / height,
            "bottom": (0.5 + 0.19 * len(pairs)) / height,
        }
        grid: Any = figure.subplots(1, len(GRAMS), sharey=True, gridspec_kw=room)
        for column, part in enumerate(GRAMS):
            axes: Axes = grid[column]
            axes.set_title(TITLES[part])
            for place, (run, found) in enumerate(pairs):
                look: Series = series(run.refinement)
                axes.plot(
                    [found.distances[target][column] for target in TARGETS],
                    np.arange(len(TARGETS)) + 0.5 * ((place + 0.5) / len(pairs) - 0.5),
                    MARKS[place % len(MARKS)],
                    color=look.colour,
                    markerfacecolor=look.colour if look.filled else "white",
                    markersize=5,
                    clip_on=False,
                    label=run.name,
                )
            axes.set_yticks(range(len(TARGETS)), TARGETS)
            axes.set_ylim(len(TARGETS) - 0.5, -0.5)
            axes.set_xlim(left=0)
            axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
            axes.set_axisbelow(True)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower left", frameon=False, fontsize=8.5)
        figure.text(0.98, 0.42 / height * 0.5, "normalised distance, 0 to 2", ha="right", fontsize=8.5)
    return figure


def comparison_table(compared: Sequence[tuple[FinishedRun, Comparison]]) -> pd.DataFrame:
    """The rows of all runs."""
    return pd.DataFrame([row for run, found in compared for row in comparison_rows(run, found)])
