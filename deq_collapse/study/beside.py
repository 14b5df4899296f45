"""A trained network beside the theory: what ``theory compare`` leaves in a run, and its figures."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically
from deq_collapse.study.style import INK, RC, series

TARGETS = ("ETF", "SELI", "layer-peeled", "GOF")
GRAMS = {"weights": "classifier rows", "means": "class means", "logits": "logits"}
VALUES = ("weight_energy", "feature_energy", "loss_of_means", "optimal_loss")
ROW, TOP, BOTTOM, LEFT = 0.15, 0.32, 0.5, 0.95  # inches
LETTER = 0.062  # inches of a run's name, each


@dataclass(frozen=True)
class Beside:
    """One run beside the theory.

    Attributes:
        name: of the run.
        refinement: `explicit` or `equilibrium`.
        majority: indices of majority classes; empty without a step imbalance.
        table: a row per target: the normalised distances `weights`, `means`, `logits` in [0, 2], and the
            values of the run, the same in every row.
        grams: `this run`, every target and `not centred` (the run's, as GOF is compared with) to the Gram
            matrices of classifier rows and class means and the logits, (3, K, K), each of unit norm.
    """

    name: str
    refinement: str
    majority: tuple[int, ...]
    table: pd.DataFrame
    grams: Mapping[str, NDArray[np.float64]]

    @property
    def words(self) -> str:
        """Energies, losses and minority cosines, measured and at the layer-peeled optimum."""
        row = self.table.iloc[0]
        text = (
            f"E_W {row['weight_energy']:.3g}, E_H {row['feature_energy']:.3g}; loss of the class means"
            f" {row['loss_of_means']:.3g}, the least for these energies {row['optimal_loss']:.3g}"
        )
        if self.majority:
            text += "; minority cosine " + ", ".join(
                f"of {part} {row[f'minority_cos_{part}']:.3f} (optimum"
                f" {row[f'minority_cos_{part}_optimal']:.3f})"
                for part in ("weights", "means")
            )
        return text + "."


def write_beside(directory: Path, beside: Beside) -> None:
    """Writes ``theory.csv`` and ``theory.npz``.

    Raises:
        UserError: where they cannot be written.
    """
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **beside.grams)
    write_atomically(directory / "theory.csv", beside.table.to_csv(index=False))
    write_atomically(directory / "theory.npz", buffer.getvalue())


def read_beside(directory: Path, name: str, refinement: str, majority: Sequence[int] | None) -> Beside | None:
    """What `write_beside` left in a run; None where it left nothing.

    Raises:
        UserError: a file is broken, or one of the two is missing.
    """
    paths = directory / "theory.csv", directory / "theory.npz"
    if not paths[1].exists():
        return None
    again = f"lay the run beside the theory again: deq-collapse theory compare {directory}"
    try:
        table = pd.read_csv(paths[0])
        with np.load(paths[1], allow_pickle=False) as arrays:
            grams = {key: arrays[key] for key in ("this run", *TARGETS, "not centred")}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{paths[0]} and {paths[1].name} are not complete; {again}.") from error
    if list(table.get("target", ())) != list(TARGETS) or not {*GRAMS, *VALUES} <= set(table.columns):
        raise UserError(f"{paths[0]} lacks values or targets; {again}.")
    return Beside(name, refinement, tuple(majority or ()), table, grams)


def grams_figure(beside: Beside) -> Figure:
    """Normalised Gram matrices of one run beside those of every target, majority classes first; under each
    its distance to the run's.
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
    """Says at the right of every line which run it is."""
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
    """Without the words that all names share, as long as something is left of each."""
    words = [name.split("-") for name in names]
    shared = set(words[0]).intersection(*words[1:]) if len(names) > 1 else set()
    short = ["-".join(word for word in name if word not in shared) for name in words]
    return short if all(short) and len(set(short)) == len(short) else list(names)
