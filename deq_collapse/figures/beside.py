"""Trained networks compared with theory: their Gram matrices, and their distances to every target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deq_collapse.figures.style import INK, RC, series
from deq_collapse.runs.beside import GRAMS, TARGETS, Beside

ROW, TOP, BOTTOM, LEFT = 0.15, 0.32, 0.5, 0.95  # inches
LETTER = 0.062  # inches per letter of a run's name


def grams_figure(beside: Beside) -> Figure:
    """Normalised Gram matrices of one run beside those of every target, majority classes first; below each
    target's is its distance to the run's.
    """
    count = beside.grams["this run"].shape[-1]
    order = [*beside.majority, *(c for c in range(count) if c not in set(beside.majority))]
    distances = beside.table.set_index("target")[list(GRAMS)].astype(float)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(9.4, 5.2))
        room = {"left": 0.04, "right": 0.99, "top": 0.93, "bottom": 0.05}
        grid: Any = figure.subplots(len(GRAMS), len(beside.grams), gridspec_kw=room)
        for row, (part, title) in enumerate(GRAMS.items()):
            shown = {name: grams[row][np.ix_(order, order)] for name, grams in beside.grams.items()}
            limit = max(float(np.abs(matrix).max()) for matrix in shown.values())
            for axes, (name, matrix) in zip(grid[row], shown.items(), strict=True):
                axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none")
                axes.set_xticks([])
                axes.set_yticks([])
                if beside.majority:
                    axes.axhline(len(beside.majority) - 0.5, color=INK, linewidth=0.7)
                    axes.axvline(len(beside.majority) - 0.5, color=INK, linewidth=0.7)
                if name in distances.index:
                    distance = float(distances[part][name])
                    axes.set_xlabel(f"distance {distance:.2f}", fontsize=8, labelpad=3)
            grid[row, 0].set_ylabel(title)
        for axes, name in zip(grid[0], beside.grams, strict=True):
            axes.set_title(name, fontsize=9)
    return figure


def distance_figure(besides: Sequence[Beside]) -> Figure:
    """Distances of several runs to every target, a panel per Gram matrix, a line per run and target."""
    names = _short([beside.name for beside in besides])
    step = len(besides) + 1
    right = 0.2 + LETTER * max(map(len, names))
    width, height = LEFT + 3 * 1.9 + right, TOP + BOTTOM + ROW * step * len(TARGETS)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height))
        room = {
            "left": LEFT / width,
            "right": 1 - right / width,
            "top": 1 - TOP / height,
            "bottom": BOTTOM / height,
            "wspace": 0.12,
        }
        grid: Any = figure.subplots(1, len(GRAMS), sharex=True, sharey=True, gridspec_kw=room)
        for axes, (part, title) in zip(grid, GRAMS.items(), strict=True):
            axes.set_title(title)
            for place, beside in enumerate(besides):
                look = series(beside.refinement)
                heights = step * np.arange(len(TARGETS)) + place
                axes.hlines(heights, 0, beside.table[part], color=look.colour, linewidth=0.8, alpha=0.5)
                axes.plot(
                    beside.table[part],
                    heights,
                    look.marker,
                    color=look.colour,
                    markerfacecolor=look.colour if look.filled else "white",
                    markersize=4.5,
                    clip_on=False,
                )
            axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(axis="y", length=0)
        largest = max(float(beside.table[part].max()) for beside in besides for part in GRAMS)
        grid[0].set_xlim(0, 1.05 * largest)
        grid[0].set_yticks(step * np.arange(len(TARGETS)) + (len(besides) - 1) / 2, TARGETS)
        grid[0].set_ylim(step * len(TARGETS) - 1, -1)
        grid[1].set_xlabel("normalised distance: 0 is the same up to scale, at most 2")
        _name(grid[-1], besides, names, step)
    return figure


def _name(axes: Axes, besides: Sequence[Beside], names: Sequence[str], step: int) -> None:
    """Writes the name of the run to the right of every line."""
    for place, (beside, name) in enumerate(zip(besides, names, strict=True)):
        for target in range(len(TARGETS)):
            axes.annotate(
                name,
                (1.03, target * step + place),
                xycoords=("axes fraction", "data"),
                va="center",
                color=series(beside.refinement).text,
                fontsize=7.5,
            )


def _short(names: Sequence[str]) -> list[str]:
    """Names without the words that all share, if something distinct is left of each."""
    words = [name.split("-") for name in names]
    shared = set(words[0]).intersection(*words[1:]) if len(names) > 1 else set()
    short = ["-".join(word for word in name if word not in shared) for name in words]
    return short if all(short) and len(set(short)) == len(short) else list(names)
