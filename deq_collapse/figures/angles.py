"""Angles between classes: class means and classifier rows of every refinement, compared with ETF and SELI."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from deq_collapse.analysis.angles import class_angles, class_order, target_angles
from deq_collapse.figures.style import INK, RC, series
from deq_collapse.metrics.geometry import seli, simplex_etf_gram
from deq_collapse.runs.geometry import Geometry
from deq_collapse.runs.record import Run

WIDTH, GAP, ROW_GAP, TOP, BAR, RIGHT = 5.8, 0.12, 0.46, 0.32, 0.5, 0.06  # inches
COLUMNS = 4
"""Two refinements and two targets; matrices of a figure with fewer keep their size."""
NAMED_CLASSES = 20
"""With more classes than this, there is no room for names."""
PARTS = ("class means", "classifier rows")
COLOURS = matplotlib.colormaps["cividis"].with_extremes(bad="white")
"""Its lightness increases evenly, so that it is readable in grey and with any colour blindness."""


def angle_matrices(runs: Mapping[str, Run]) -> Figure:
    """A row for class means and one for classifier rows; columns are the refinements, the simplex ETF and, if
    class sizes differ, the SELI geometry of the counts.

    Majority classes come first; a line separates them from the minority. Below each matrix are the mean and
    standard deviation over pairs of classes, and over pairs of minority classes.
    """
    run = next(iter(runs.values()))
    etf = target_angles(simplex_etf_gram(len(run.class_counts)).numpy())
    columns = {refinement: class_angles(each.geometry) for refinement, each in runs.items()}
    columns["simplex ETF"] = (etf, etf)
    if len(set(run.class_counts)) > 1:
        ideal = seli(run.class_counts)
        columns["SELI"] = (target_angles(ideal.means.numpy()), target_angles(ideal.weights.numpy()))
    names = _names(run.geometry) if len(run.class_counts) <= NAMED_CLASSES else []
    left = 0.42 + 0.065 * max((len(name) for name in names), default=0)
    most = max(len(columns), COLUMNS)
    side = (WIDTH - left - RIGHT - (most - 1) * GAP) / most
    height = TOP + len(PARTS) * (side + ROW_GAP) - ROW_GAP + BAR + 0.4
    limit = max(120.0, float(etf.max()))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, height))
        for column, (title, angles) in enumerate(columns.items()):
            x = left + column * (side + GAP)
            for row, matrix in enumerate(angles):
                y = height - TOP - side - row * (side + ROW_GAP)
                axes = figure.add_axes((x / WIDTH, y / height, side / WIDTH, side / height))
                image = _draw(axes, matrix, run.geometry, limit)
                if row == 0:
                    colour = series(title).text if title in runs else INK
                    axes.set_title(title, color=colour, fontsize=9)
                if column == 0:
                    axes.set_yticks(range(len(names)), names, fontsize=7.5)
                    axes.set_ylabel(PARTS[row], fontweight="bold")
        bar = figure.add_axes((left / WIDTH, 0.3 / height, 2 * side / WIDTH, 0.09 / height))
        ticks = [0, 30, 60, 90, 120]
        colours = figure.colorbar(image, cax=bar, orientation="horizontal", ticks=ticks, format="{x:.0f}°")
        colours.outline.set_visible(False)
        x = (left + 2 * side + GAP) / WIDTH
        figure.text(x, 0.33 / height, "angle between two classes", fontsize=8.5, va="center")
    return figure


def _names(geometry: Geometry) -> list[str]:
    """Names in drawing order, with long ones truncated."""
    names = [str(geometry.class_names[c]) for c in class_order(geometry)]
    return [name if len(name) <= 11 else name[:10] + "…" for name in names]


def _draw(axes: Axes, angles: NDArray[np.float64], geometry: Geometry, limit: float) -> AxesImage:
    order, majority = class_order(geometry), len(geometry.majority)
    shown = angles[np.ix_(order, order)]
    image = axes.imshow(np.ma.masked_invalid(shown), cmap=COLOURS, vmin=0, vmax=limit, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if majority:
        for line in (axes.axhline, axes.axvline):
            line(majority - 0.5, color="white", linewidth=1.4)
    words = f"all {_summary(shown)}"
    if majority and len(shown) - majority > 1:
        words += f"\nminority {_summary(shown[majority:, majority:])}"
    axes.set_xlabel(words, fontsize=7.5, labelpad=2)
    return image


def _summary(angles: NDArray[np.float64]) -> str:
    off = angles[~np.eye(len(angles), dtype=bool)]
    return f"{off.mean():.0f}° ± {off.std():.0f}°"
