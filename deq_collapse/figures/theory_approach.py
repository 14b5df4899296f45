"""Distances to closed forms along descent: the drawing of `theory.approach`."""

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from deq_collapse.figures.axes import End, label_ends
from deq_collapse.figures.style import COLOURS, DASHES, FAINT, RC
from deq_collapse.runs.beside import GRAMS

FLOOR = 1e-9
"""Smaller distances are drawn at this value."""


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
