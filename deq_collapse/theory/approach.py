"""Descent on unconstrained-feature models approaches each closed form: one table and one figure."""

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from deq_collapse.metrics.geometry import gof, gram_distance, seli, simplex_etf_gram
from deq_collapse.study.style import RC
from deq_collapse.theory.closed_forms import linear_network
from deq_collapse.theory.curve import COLOURS, DASHES
from deq_collapse.theory.descent import Model, cross_entropy, descend, squared_error, squared_hinge

BALANCED, STEP = (100,) * 10, (100,) * 3 + (10,) * 7
PARTS = {"weights": "classifier rows", "means": "class means", "logits": "logits"}


class Case(NamedTuple):
    """A model and the normalised Gram matrices of weights, means and logits that solve it."""

    model: Model
    target: tuple[Tensor, Tensor, Tensor]


def cases() -> Mapping[str, Case]:
    """The models whose optimum has a formula, 10 classes each."""
    etf = simplex_etf_gram(10)
    deep = linear_network(STEP, (1e-3,) * 3, 1e-4).geometry
    return {
        "simplex ETF: cross entropy, balanced": Case(
            Model(BALANCED, (5e-3,), 5e-5, cross_entropy), (etf,) * 3
        ),
        "simplex ETF: squared error, bias, balanced": Case(
            Model(BALANCED, (1e-3,), 1e-3, squared_error, bias=True), (etf,) * 3
        ),
        "GOF: squared error, R = 10": Case(Model(STEP, (1e-3,), 1e-3, squared_error), gof(STEP, 1e-3, 1e-3)),
        "GOF: the same, 3 linear layers": Case(Model(STEP, (1e-3,) * 3, 1e-4, squared_error), deep),
        "SELI: squared hinge, R = 10": Case(Model(STEP, (1e-5,), 1e-5, squared_hinge), seli(STEP)),
    }


def approach_table() -> pd.DataFrame:
    """Normalised distance of each Gram matrix to its closed form after every step of descent."""
    rows = []
    for name, case in cases().items():
        for step, point in enumerate(descend(case.model, dim=10), 1):
            for part, found, target in zip(PARTS, point, case.target, strict=True):
                rows.append((name, step, part, float(gram_distance(found, target))))
    return pd.DataFrame(rows, columns=["case", "step", "part", "distance"])


def approach_figure(table: pd.DataFrame) -> Figure:
    """A panel per Gram matrix, a line per model, against steps of L-BFGS."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(8.4, 3.3))
        for column, (part, title) in enumerate(PARTS.items()):
            axes = figure.add_axes((0.07 + 0.315 * column, 0.35, 0.28, 0.56))
            axes.set_title(title)
            for place, (name, rows) in enumerate(table[table["part"] == part].groupby("case", sort=False)):
                axes.plot(
                    rows["step"],
                    np.maximum(rows["distance"], 1e-9),
                    color=COLOURS[place],
                    linestyle=DASHES[place % len(DASHES)],
                    linewidth=1.5,
                    label=name,
                )
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_ylim(1e-8, 2)
            axes.set_xlabel("steps of descent")
            axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
            if column:
                axes.set_yticklabels([])
            else:
                axes.set_ylabel("distance to the closed form")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False, fontsize=8.5)
    return figure
