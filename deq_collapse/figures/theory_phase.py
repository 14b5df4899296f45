"""Phase diagrams of minority collapse: the drawing of `theory.phase`."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deq_collapse.figures.style import INK, RC, series
from deq_collapse.theory.critical import critical_ratio
from deq_collapse.theory.phase import LEAST_DECAY, VALUES, Dot, boundary


def phase_figure(
    table: pd.DataFrame,
    num_classes: int,
    majority: int,
    weight_energy: float,
    feature_energy: float,
    dots: Sequence[Dot] = (),
) -> Figure:
    """Two planes in columns, two values in rows. On the line minority classifiers begin to coincide; in grey
    areas they, or their means, are 0. Trained networks are filled by their measured value: discs are
    explicit, squares equilibrium; several with the same R and K_A are stacked.
    """
    ratios = np.unique(table["ratio"])
    edge = {
        "decay": (ratios, boundary(num_classes, majority, ratios.tolist())),
        "split": _splits(num_classes, weight_energy, feature_energy),
    }
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(7.6, 6.2))
        room = {"left": 0.1, "right": 0.88, "bottom": 0.11, "top": 0.95, "wspace": 0.25, "hspace": 0.12}
        grid: Any = figure.subplots(2, 2, gridspec_kw=room)
        for row, (value, name) in enumerate(VALUES.items()):
            limits = (-1 / (num_classes - 1), 1) if row == 0 else (0, 100)
            for column, plane in enumerate(("decay", "split")):
                axes = grid[row, column]
                image = _map(axes, table[table["plane"] == plane], plane, value, limits)
                x, y = edge[plane]
                axes.plot(
                    x, y, color=INK, linewidth=1.3, marker="" if plane == "decay" else "_", markersize=14
                )
                for dot, (height, below) in _heights(dots, plane, majority, axes.get_ylim()[0]):
                    marker, size = series(dot.refinement).marker, 38 if plane == "decay" else 9
                    _draw(axes, dot, height, "v" if below else marker, size, value, image)
                axes.set_xlim(1, ratios[-1])
                if row == 0:
                    energies = f"$E_W E_H$ = {weight_energy * feature_energy:.3g}"
                    axes.set_title(f"$K_A$ = {majority}" if plane == "decay" else energies)
                else:
                    axes.set_xlabel("imbalance ratio R")
                axes.set_ylabel("decay $N λ_W λ_H$" if plane == "decay" else "majority classes $K_A$")
            place = grid[row, 1].get_position()
            room_of_bar = figure.add_axes((0.9, place.y0, 0.018, place.height))
            bar = figure.colorbar(image, cax=room_of_bar)
            bar.set_label(name if row == 0 else name + ", degrees")
        if dots:
            words = "Marks: trained networks, filled by their measured value; discs explicit, squares DEQ"
            if any(dot.decay < LEAST_DECAY for dot in dots):
                words += ", triangles below the diagram"
            figure.text(0.06, 0.012, words, fontsize=8)
    return figure


def _heights(
    dots: Sequence[Dot], plane: str, majority: int, lowest: float
) -> list[tuple[Dot, tuple[float, bool]]]:
    """The networks of a plane, each with its height and whether it is below the diagram."""
    if plane == "decay":
        own = [dot for dot in dots if dot.majority == majority]
        return [(dot, (max(dot.decay, lowest), dot.decay < lowest)) for dot in own]
    placed = []
    for dot in dots:
        peers = [other for other in dots if (other.majority, other.ratio) == (dot.majority, dot.ratio)]
        offset = (peers.index(dot) + 0.5) / len(peers) - 0.5
        placed.append((dot, (dot.majority + 0.9 * offset, False)))
    return placed


def _draw(axes: Axes, dot: Dot, height: float, marker: str, size: float, value: str, image: Any) -> None:
    """A trained network, ringed in white and in ink to be visible on any colour."""
    axes.scatter(dot.ratio, height, c="white", marker=marker, s=1.9 * size, zorder=4, clip_on=False)
    axes.scatter(
        dot.ratio,
        height,
        c=[getattr(dot, value)],
        cmap=image.get_cmap(),
        norm=image.norm,
        marker=marker,
        edgecolors=INK,
        linewidths=0.8,
        s=size,
        zorder=5,
        clip_on=False,
        plotnonfinite=True,
    )


def _map(axes: Axes, rows: pd.DataFrame, plane: str, value: str, limits: tuple[float, float]) -> Any:
    y = "decay" if plane == "decay" else "majority"
    wide = rows.pivot(index=y, columns="ratio", values=value)
    colours = matplotlib.colormaps["viridis" if value == "minority_angle" else "viridis_r"]
    image = axes.pcolormesh(
        wide.columns.to_numpy(),
        wide.index.to_numpy(),
        np.ma.masked_invalid(wide.to_numpy()),
        cmap=colours.with_extremes(bad="#c8c8c8"),
        vmin=limits[0],
        vmax=limits[1],
        shading="nearest",
        rasterized=True,
    )
    axes.set_facecolor("#c8c8c8")
    axes.set_xscale("log")
    if plane == "decay":
        axes.set_yscale("log")
        axes.set_ylim(wide.index.min(), wide.index.max())
    else:
        axes.set_yticks(wide.index.to_numpy())
    return image


def _splits(num_classes: int, weight_energy: float, feature_energy: float) -> tuple[list[float], list[int]]:
    splits = list(range(1, num_classes - 1))
    return [critical_ratio(num_classes, split, weight_energy, feature_energy) for split in splits], splits
