"""Gram heat maps: cosines between centred class means and between classifier rows, beside the simplex ETF."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from deq_collapse.study.records import Geometry, Run
from deq_collapse.study.style import INK, RC, series

WIDTH, GAP, ROW_GAP, TOP, BOTTOM, RIGHT = 5.6, 0.16, 0.42, 0.3, 0.0, 0.06  # inches
BAR = 0.62  # inches from a map to the colour bar below it
NAMED_CLASSES = 20
"""More classes than this have no room for their names."""


def cosine_gram(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines between all pairs of rows, (K, d) -> (K, K) in [-1, 1]; nan where a row is zero."""
    rows = np.asarray(rows, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norms, out=np.full_like(rows, np.nan), where=norms > 0)
    gram: NDArray[np.float64] = np.clip(unit @ unit.T, -1, 1)
    return gram


def etf_cosines(num_classes: int) -> NDArray[np.float64]:
    """Cosines of the simplex equiangular tight frame: 1 on the diagonal, -1/(K-1) off it (Papyan 2020)."""
    return (num_classes * np.eye(num_classes) - 1) / (num_classes - 1)


def gram_maps(runs: Mapping[str, Run]) -> Figure:
    """One row per run (by refinement): class means, classifier rows; the ideal beside them, one colour bar.

    Class means are those of the training split, centred by their unweighted mean. Majority classes come
    first, a line divides them from the minority.
    """
    geometry = next(iter(runs.values())).geometry
    num_classes = len(geometry.weight)
    names = _names(geometry) if num_classes <= NAMED_CLASSES else []
    left = 0.42 + 0.065 * max((len(name) for name in names), default=0)
    side = (WIDTH - left - RIGHT - 2 * GAP) / 3
    height = TOP + len(runs) * (side + ROW_GAP) + (BOTTOM if len(runs) > 1 else BAR)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, height))

        def square(column: int, row: float) -> Axes:
            x = left + column * (side + GAP)
            y = height - TOP - side - row * (side + ROW_GAP)
            return figure.add_axes((x / WIDTH, y / height, side / WIDTH, side / height))

        for row, (refinement, run) in enumerate(runs.items()):
            means = np.asarray(run.geometry.class_means_train, dtype=np.float64)
            for column, rows in enumerate((means - means.mean(axis=0), run.geometry.weight)):
                axes = square(column, row)
                _draw(axes, cosine_gram(rows), run.geometry)
                if column == 0:
                    axes.set_yticks(range(len(names)), names, fontsize=7.5)
                    axes.set_ylabel(refinement, fontweight="bold", color=series(refinement).text)
                if row == 0:
                    axes.set_title(("class means", "classifier rows")[column])
        axes = square(2, 0)
        image = _draw(axes, etf_cosines(num_classes), geometry)
        axes.set_title("ideal: simplex ETF")
        x, y = left + 2 * (side + GAP), height - TOP - side - BAR
        bar = figure.add_axes((x / WIDTH, y / height, side / WIDTH, 0.1 / height))
        colours = figure.colorbar(
            image, cax=bar, orientation="horizontal", ticks=[-1, 0, 1], format="{x:.0f}"
        )
        colours.set_label("cosine of two classes", labelpad=2)
    return figure


def _order(geometry: Geometry) -> NDArray[np.int64]:
    """Class indices, majority first."""
    rest = np.setdiff1d(np.arange(len(geometry.weight)), geometry.majority)
    return np.concatenate([geometry.majority, rest]).astype(np.int64)


def _names(geometry: Geometry) -> list[str]:
    """Names in the order drawn, the long ones cut."""
    names = [str(geometry.class_names[c]) for c in _order(geometry)]
    return [name if len(name) <= 11 else name[:10] + "…" for name in names]


def _draw(axes: Axes, gram: NDArray[np.float64], geometry: Geometry) -> AxesImage:
    order = _order(geometry)
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#bbbbbb")
    shown = np.ma.masked_invalid(gram[np.ix_(order, order)])
    image = axes.imshow(shown, cmap=colours, vmin=-1, vmax=1, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(True)
    boundary = len(geometry.majority) - 0.5
    if boundary > 0:
        axes.axhline(boundary, color=INK, linewidth=0.9)
        axes.axvline(boundary, color=INK, linewidth=0.9)
    off = gram[~np.eye(len(gram), dtype=bool)]
    words = f"pairs: {_signed(off.mean())} ± {off.std():.2f}".replace("± 0.00", "")
    axes.set_xlabel(words, fontsize=8, labelpad=3)
    return image


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
