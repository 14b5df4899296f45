"""Descent on unconstrained-feature models approaches each closed form: one table and one figure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from deq_collapse.metrics.geometry import gof, gram_distance, seli, simplex_etf_gram
from deq_collapse.study.axes import End, label_ends
from deq_collapse.study.beside import GRAMS
from deq_collapse.study.style import FAINT, RC
from deq_collapse.theory.closed_forms import linear_network
from deq_collapse.theory.curve import COLOURS, DASHES
from deq_collapse.theory.descent import Model, cross_entropy, descend, squared_error, squared_hinge

BALANCED, STEP = (100,) * 10, (100,) * 3 + (10,) * 7
FLOOR = 1e-9
"""Distances below it are drawn there."""


class Case(NamedTuple):
    """A model, the normalised Gram matrices of weights, means and logits that solve it, and how descent gets
    there: its rate, momentum and number of steps.
    """

    model: Model
    target: tuple[Tensor, Tensor, Tensor]
    rate: float
    steps: int = 1000
    momentum: float = 0.9


def cases() -> Mapping[str, Case]:
    """The models whose optimum has a formula, 10 classes each."""
    etf, frame = simplex_etf_gram(10), gof(BALANCED, 1e-3, 1e-3)
    deep = linear_network(STEP, (1e-3,) * 3, 1e-4).geometry
    error = squared_error
    return {
        "ETF: cross entropy": Case(Model(BALANCED, (5e-3,), 5e-5, cross_entropy), (etf,) * 3, 30),
        "ETF: squared error, bias": Case(Model(BALANCED, (1e-3,), 1e-3, error, bias=True), (etf,) * 3, 1),
        "orthogonal: squared error": Case(Model(BALANCED, (1e-3,), 1e-3, error), frame, 3),
        "GOF, R = 10: squared error": Case(Model(STEP, (1e-3,), 1e-3, error), gof(STEP, 1e-3, 1e-3), 10),
        "GOF, 3 layers, R = 10": Case(Model(STEP, (1e-3,) * 3, 1e-4, error), deep, 1, steps=3000),
        "SELI, R = 10: squared hinge": Case(
            Model(STEP, (2e-5,), 2e-5, squared_hinge), seli(STEP), 1, steps=10_000, momentum=0.99
        ),
    }


def approach_table() -> pd.DataFrame:
    """Normalised distance of each Gram matrix to its closed form along descent."""
    rows = []
    for name, case in cases().items():
        points = descend(case.model, 10, case.rate, case.steps, case.momentum)
        for step, point in points.items():
            for part, found, target in zip(GRAMS, point, case.target, strict=True):
                rows.append((name, step, part, float(gram_distance(found, target))))
    return pd.DataFrame(rows, columns=["case", "step", "part", "distance"])


def approach_figure(table: pd.DataFrame) -> Figure:
    """A panel per Gram matrix, a line per model, against steps of descent."""
    width, height = 9.6, 3.1
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height))
        room = {"left": 0.07, "right": 0.78, "top": 0.9, "bottom": 0.16, "wspace": 0.1}
        grid: Any = figure.subplots(1, len(GRAMS), sharex=True, sharey=True, gridspec_kw=room)
        for axes, (part, title) in zip(grid, GRAMS.items(), strict=True):
            axes.set_title(title)
            ends = []
            for place, (name, rows) in enumerate(table[table["part"] == part].groupby("case", sort=False)):
                line, colour = rows.set_index("step")["distance"].clip(lower=FLOOR), COLOURS[place]
                axes.plot(line, color=colour, linestyle=DASHES[place % len(DASHES)], linewidth=1.5)
                ends.append(End(str(name), colour, float(line.index[-1]), float(line.iloc[-1])))
            axes.set_xlabel("steps of descent")
            axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
            axes.axhline(1e-3, color=FAINT, linewidth=0.7, linestyle=":")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(FLOOR, 2)
        axes.set_xlim(1, float(table["step"].max()))
        label_ends(axes, ends, 0.74 * height)
        grid[0].set_ylabel("distance to the closed form")
    return figure
