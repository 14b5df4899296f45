"""Phase diagrams of minority collapse: over the imbalance ratio and the decay, and over ratio and split."""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deq_collapse.metrics.functional import cosines
from deq_collapse.study.style import INK, RC
from deq_collapse.theory.critical import critical_ratio
from deq_collapse.theory.peeled import (
    Peeled,
    layer_peeled,
    minority_cosine,
    step_counts,
    unconstrained_features,
)

VALUES = {"minority_cosine": "cosine of minority classifiers", "minority_angle": "smallest minority angle"}


class Dot(NamedTuple):
    """A trained network in the diagrams: its step, effective decay, and measured values."""

    name: str
    majority: int
    ratio: float
    decay: float
    minority_cosine: float
    minority_angle: float


def smallest_angle(means: torch.Tensor, majority: int) -> float:
    """Smallest angle between the mean of a minority class, beyond the first `majority`, and any other mean,
    in degrees, from the Gram matrix of centred means; nan where a minority mean is 0.
    """
    own = torch.eye(len(means), dtype=torch.bool)
    lengths = means.diagonal().clamp(min=0)
    if float(lengths.min()) <= 1e-5 * float(lengths.max()):
        return float("nan")
    largest = cosines(means).masked_fill(own, -1)[majority:].max().clamp(-1, 1)
    return float(torch.rad2deg(largest.arccos()))


def phase_table(
    num_classes: int,
    majority: int,
    weight_energy: float,
    feature_energy: float,
    largest: float,
    points: int,
) -> pd.DataFrame:
    """Values over two planes: `decay` (R and delta = N weight_decay feature_decay, penalised form) and
    `split` (R and K_A at fixed energies, layer-peeled form).

    Raises:
        ValueError: a split or energies that make no program.
    """
    ratios = np.geomspace(1, largest, points)
    # Nothing is learnt from delta = n_A / N <= 1 / K_A on.
    decays = np.geomspace(1e-7, 1 / majority, points)
    rows = []
    for ratio, decay in product(ratios, decays):
        counts = step_counts(num_classes, majority, ratio)
        root = (decay / sum(counts)) ** 0.5
        rows.append(("decay", ratio, decay, majority, unconstrained_features(counts, root, root)))
    for split, ratio in product(range(1, num_classes - 1), ratios):
        counts = step_counts(num_classes, split, ratio)
        rows.append(("split", ratio, np.nan, split, layer_peeled(counts, weight_energy, feature_energy)))
    table = pd.DataFrame([(*row[:4], *_values(row[4], row[3])) for row in rows])
    table.columns = pd.Index(["plane", "ratio", "decay", "majority", *VALUES])
    return table


def _values(found: Peeled, majority: int) -> tuple[float, float]:
    return minority_cosine(found.weights, majority), smallest_angle(found.means, majority)


def boundary(num_classes: int, majority: int, ratios: Sequence[float]) -> list[float]:
    """delta = n_B / N from which on minority classifiers coincide; exact."""
    return [1 / (majority * ratio + num_classes - majority) for ratio in ratios]


def phase_figure(
    table: pd.DataFrame,
    num_classes: int,
    majority: int,
    weight_energy: float,
    feature_energy: float,
    dots: Sequence[Dot] = (),
) -> Figure:
    """Two planes across, two values down. The line is where minority classifiers begin to coincide, grey is
    where they, or their means, are 0; rings are trained networks, filled by their measured value.
    """
    ratios = np.unique(table["ratio"])
    edge = {
        "decay": (ratios, boundary(num_classes, majority, ratios.tolist())),
        "split": _splits(num_classes, weight_energy, feature_energy),
    }
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(7.6, 6.2))
        room = {"left": 0.1, "right": 0.88, "bottom": 0.08, "top": 0.95, "wspace": 0.25, "hspace": 0.12}
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
                for dot in dots:
                    if plane == "split" or dot.majority == majority:
                        _draw(axes, dot, plane, value, image)
                axes.set_xlim(1, ratios[-1])
                if row == 0:
                    axes.set_title(f"$K_A$ = {majority}" if plane == "decay" else "fixed energies")
                else:
                    axes.set_xlabel("imbalance ratio R")
                axes.set_ylabel("decay $N λ_W λ_H$" if plane == "decay" else "majority classes $K_A$")
            place = grid[row, 1].get_position()
            room_of_bar = figure.add_axes((0.9, place.y0, 0.018, place.height))
            bar = figure.colorbar(image, cax=room_of_bar)
            bar.set_label(name if row == 0 else name + ", degrees")
    return figure


def _draw(axes: Axes, dot: Dot, plane: str, value: str, image: Any) -> None:
    """A trained network; a triangle at the edge stands for one whose decay lies below the diagram."""
    lowest = axes.get_ylim()[0]
    below = plane == "decay" and dot.decay < lowest
    axes.scatter(
        dot.ratio,
        (max(dot.decay, lowest) if plane == "decay" else dot.majority),
        c=[getattr(dot, value)],
        cmap=image.get_cmap(),
        norm=image.norm,
        marker="v" if below else "o",
        edgecolors="white",
        linewidths=1.2,
        s=48,
        zorder=4,
        clip_on=False,
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
