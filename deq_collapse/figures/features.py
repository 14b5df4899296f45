"""Test features of one setting, refinements side by side: t-SNE above their Gram matrix."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from deq_collapse.analysis.angles import class_order, cosine_gram
from deq_collapse.figures.angles import COLOURS, NAMED_CLASSES
from deq_collapse.figures.style import RC, series
from deq_collapse.figures.tsne import draw_tsne
from deq_collapse.runs.geometry import Geometry
from deq_collapse.runs.record import Run

SIDE, LEFT, GAP, TOP, BETWEEN, BOTTOM = 3.0, 0.75, 0.14, 0.32, 0.14, 0.62  # inches
LARGEST_GRAM = 250
"""Largest number of features in a Gram matrix: with more, pixels would be too small for print."""
STEPS = 20
"""Steps of the colour scale: a tenth of a cosine each, which also compresses well."""


def feature_maps(runs: Mapping[str, Run]) -> Figure:
    """A column per refinement. Above, t-SNE of test features; below, cosines between pairs of them, centred
    by the unweighted mean of class means, sorted by class, majority classes first; white lines separate up to
    `NAMED_CLASSES` classes.
    """
    names = list(map(str, next(iter(runs.values())).geometry.class_names))
    left = LEFT + 0.05 * max(len(name) for name in names)
    width = left + len(runs) * (SIDE + GAP) - GAP + 0.1
    height = TOP + 2 * SIDE + BETWEEN + BOTTOM
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height))
        for column, (refinement, run) in enumerate(runs.items()):
            x, size = (left + column * (SIDE + GAP)) / width, (SIDE / width, SIDE / height)
            above = figure.add_axes((x, 1 - (TOP + SIDE) / height, *size))
            above.set_title(refinement, color=series(refinement).text)
            draw_tsne(above, run.geometry)
            below = figure.add_axes((x, BOTTOM / height, *size))
            image = _gram(below, run.geometry, named=column == 0)
            if column == 0:
                above.set_ylabel("t-SNE", fontweight="bold")
        bar = figure.add_axes((left / width, 0.34 / height, 0.6 * SIDE / width, 0.09 / height))
        colours = figure.colorbar(
            image, cax=bar, orientation="horizontal", ticks=[-1, 0, 1], format="{x:.0f}"
        )
        colours.outline.set_visible(False)
        x = (left + 0.6 * SIDE + GAP) / width
        figure.text(x, 0.385 / height, "cosine of two test features", fontsize=8.5, va="center")
    return figure


def sorted_gram(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cosines between test features, and their classes, both sorted by class with the majority first; with
    many features, equally spaced ones in that order.
    """
    labels = geometry.test_labels
    rank = np.argsort(class_order(geometry))[labels]
    order = np.argsort(rank, kind="stable")
    if len(order) > LARGEST_GRAM:
        order = order[np.linspace(0, len(order) - 1, LARGEST_GRAM).round().astype(int)]
    features = np.asarray(geometry.test_features, dtype=np.float64)
    means = [features[labels == c].mean(axis=0) for c in np.unique(labels)]
    return cosine_gram((features - np.mean(means, axis=0))[order]), labels[order]


def _gram(axes: Axes, geometry: Geometry, named: bool) -> AxesImage:
    gram, labels = sorted_gram(geometry)
    image = axes.imshow(
        np.ma.masked_invalid(gram),
        cmap=COLOURS.resampled(STEPS).with_extremes(bad="white"),
        vmin=-1,
        vmax=1,
        interpolation="none",
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks([])
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    ends = np.append(starts[1:], len(labels))
    for start in starts[1:] if len(starts) <= NAMED_CLASSES else ():
        axes.axhline(start - 0.5, color="white", linewidth=0.5)
        axes.axvline(start - 0.5, color="white", linewidth=0.5)
    axes.set_yticks([])
    if named and len(starts) <= NAMED_CLASSES:
        words = [str(geometry.class_names[c]) for c in labels[starts]]
        axes.set_yticks((starts + ends - 1) / 2, words, fontsize=7.5)
    if named:
        axes.set_ylabel("Gram matrix", fontweight="bold")
    axes.tick_params(length=0)
    return image
