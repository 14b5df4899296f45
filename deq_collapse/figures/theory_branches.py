"""Both peeled branches over K_A and R: the drawing of `theory.branch_table`."""

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from deq_collapse.figures.style import RC, series
from deq_collapse.theory.branch_table import BRANCHES, PANELS


def branch_figure(table: pd.DataFrame) -> Figure:
    """A column per K_A, a row per value, both branches against R."""
    majorities = list(dict.fromkeys(table["majority"]))
    width, height = 1.1 + 2.3 * len(majorities), 0.75 + 1.45 * len(PANELS)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height))
        grid: Any = figure.subplots(len(PANELS), len(majorities), sharex=True, sharey="row", squeeze=False)
        for column, majority in enumerate(majorities):
            for row, (name, title) in enumerate(PANELS.items()):
                axes = grid[row, column]
                for branch in BRANCHES:
                    look = series(branch)
                    rows = table[(table["majority"] == majority) & (table["branch"] == branch)]
                    axes.plot(
                        rows["ratio"],
                        rows[name],
                        color=look.colour,
                        marker=look.marker,
                        markersize=4.2,
                        markerfacecolor=look.colour if look.filled else "white",
                        linewidth=1.6,
                        label=branch,
                    )
                if name == "loss":
                    axes.set_yscale("log")
                axes.set_xscale("log")
                axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
                if column == 0:
                    axes.set_title(title, fontsize=9)
                if row == 0 and len(majorities) > 1:
                    axes.text(
                        1, 1.05, f"$K_A$ = {majority}", transform=axes.transAxes, ha="right", va="bottom"
                    )
            grid[-1, column].set_xlabel("imbalance ratio R")
        figure.subplots_adjust(
            left=0.65 / width,
            right=1 - 0.1 / width,
            top=1 - 0.55 / height,
            bottom=0.5 / height,
            hspace=0.32,
            wspace=0.08,
        )
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=2, frameon=False)
    return figure
