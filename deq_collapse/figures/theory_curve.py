"""Minority cosine against the imbalance ratio, and where it reaches 1: the drawing of `theory.curve`."""

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deq_collapse.figures.style import COLOURS, DASHES, FAINT, INK, RC


def curve_figure(table: pd.DataFrame) -> Figure:
    """A line per number of majority classes; rings are from the full program, rules mark R0, and a cross
    marks where the rows become 0.
    """
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(5.6, 3.1))
        axes = figure.add_axes((0.11, 0.16, 0.86, 0.66))
        for place, (majority, rows) in enumerate(table.groupby("majority")):
            _line(axes, str(majority), rows, place)
        axes.set_xscale("log")
        axes.set_xlim(1, table["ratio"].max())
        axes.set_ylim(min(-0.12, float(table["minority_cosine"].min()) - 0.02), 1.03)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.axhline(0, color=FAINT, linewidth=0.5)
        axes.set_xlabel("imbalance ratio R", color=INK)
        axes.set_ylabel("cosine of minority classifiers")
    return figure


def _line(axes: Axes, majority: str, rows: pd.DataFrame, place: int) -> None:
    """What one number of majority classes gives."""
    colour, dash = COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]
    line, full, critical = (rows[rows["program"] == name] for name in ("reduced", "full", "critical"))
    axes.plot(line["ratio"], line["minority_cosine"], color=colour, linewidth=1.9, linestyle=dash)
    last = line["minority_cosine"].last_valid_index()
    if last != line.index[-1]:
        end = tuple(line.loc[last, ["ratio", "minority_cosine"]])
        axes.plot(*end, "x", color=colour, markeredgewidth=1.6)
        axes.annotate("vanish", end, xytext=(4, -11), textcoords="offset points", color=colour, fontsize=7.5)
    axes.plot(
        full["ratio"],
        full["minority_cosine"],
        linestyle="",
        marker="o",
        markersize=5,
        markerfacecolor="white",
        markeredgecolor=colour,
        clip_on=False,
        zorder=4,
    )
    ratio = float(critical["ratio"].min())  # nan where there is no critical ratio
    if ratio <= line["ratio"].max():
        axes.axvline(ratio, color=colour, linewidth=0.7, alpha=0.6, zorder=0.5)
        axes.annotate(
            f"$K_A$ = {majority}\n$R_0$ = {ratio:.3g}",
            (ratio, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=colour,
            fontsize=8.5,
        )
