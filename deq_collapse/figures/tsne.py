"""t-SNE of test features (van der Maaten & Hinton 2008), with classes named in place."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from deq_collapse.figures.style import FAINT
from deq_collapse.runs.geometry import Geometry

# Paul Tol's "muted" scheme and a grey; classes are identified by their names; colour only helps.
_DARK = ["#332288", "#117733", "#882255", "#999933", "#5e5e5e"]
_LIGHT = ["#88ccee", "#44aa99", "#cc6677", "#ddcc77", "#aa4499"]
COLOURS = _DARK + _LIGHT
FEWEST = 5


def embed(features: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """t-SNE of (n, d) features in the plane, (n, 2); deterministic.

    None if there is nothing to show: fewer than five samples, or features that are not finite or all equal.
    Perplexity is 30, or a third of the samples if they are few. After the 500 iterations the picture would
    only sharpen (the divergence still falls by about 3%).
    """
    features = np.asarray(features, dtype=np.float64)
    if len(features) < FEWEST or not np.isfinite(features).all() or np.ptp(features, axis=0).max() == 0:
        return None
    return _embed(features.tobytes(), *features.shape).copy()


@lru_cache(maxsize=256)  # A study's report draws every map twice, in its page and as a file.
def _embed(features: bytes, samples: int, numbers: int) -> NDArray[np.float64]:
    rows = np.frombuffer(features).reshape(samples, numbers)
    init = "pca" if numbers > 1 else "random"
    made = TSNE(perplexity=min(30.0, (samples - 1) / 3), init=init, max_iter=500, random_state=0)
    return np.asarray(made.fit_transform(rows), dtype=np.float64)


def draw_tsne(axes: Axes, geometry: Geometry) -> None:
    """Draw a run's test features: discs are majority classes (or all, without majority), triangles
    minority.
    """
    plane = embed(geometry.test_features)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
    if plane is None:
        words = "no map: too few test features,\nor they are equal or not finite"
        axes.text(0.5, 0.5, words, ha="center", va="center", color=FAINT, transform=axes.transAxes)
        return
    for c in np.unique(geometry.test_labels):
        points = plane[geometry.test_labels == c]
        minority = len(geometry.majority) > 0 and c not in geometry.majority
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=9 if minority else 7,
            marker="^" if minority else "o",
            color=COLOURS[c % len(COLOURS)],
            linewidths=0,
            alpha=0.8,
            rasterized=True,  # smaller than one SVG element per point, from 100 points on
        )
    axes.margins(0.18, 0.1)
    few = len(geometry.class_names) <= 20
    for c in np.unique(geometry.test_labels):
        points = plane[geometry.test_labels == c]
        _name(axes, str(geometry.class_names[c]), points, np.ptp(plane), 8.5 if few else 5.5)


def _name(axes: Axes, name: str, points: NDArray[np.float64], extent: float, size: float) -> None:
    """Write the name of a class at the median of its points, or above them if it would hide a small group."""
    centre = np.median(points, axis=0)
    small = np.median(np.linalg.norm(points - centre, axis=1)) < 0.06 * extent
    axes.annotate(
        name,
        (centre[0], centre[1]),
        xytext=(0, 1.4 * size if small else 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=size,
        fontweight="bold",
        bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
    )
