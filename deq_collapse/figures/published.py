"""A study's curves in front of curves published by others."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deq_collapse.analysis.arrangement import Cell
from deq_collapse.figures.axes import End, Panel, label_ends, scale_of
from deq_collapse.figures.curves import draw_course, ends, set_up, splits
from deq_collapse.figures.style import RC, Series, series

WIDTH, HEIGHT = 11.2, 5.6  # inches
PANELS = (
    Panel("accuracy", "Accuracy", decades=False),
    Panel("nc1", "NC1"),
    Panel("nc2_etf_means", "NC2: distance of class means to the simplex ETF"),
    Panel("nc3", "NC3: distance of classifier to class means, squared"),
)


def published_figure(cell: Cell, curves: pd.DataFrame) -> Figure:
    """Accuracy and NC1 to NC3 of one setting against completed epochs, in front of the published curves,
    which are thin and pale, in the colour of their refinement; a curve with one point is a star.

    Args:
        cell: the runs of the setting.
        curves: from `runs.published`, for its K_A and R.
    """
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, HEIGHT))
        room = {"left": 0.05, "right": 0.855, "top": 0.945, "bottom": 0.075, "wspace": 0.55, "hspace": 0.3}
        places = figure.subplots(2, 2, gridspec_kw=room)
        height = HEIGHT * 0.87 / 2.3
        for axes, panel in zip(places.flat, PANELS, strict=True):
            _panel(axes, panel, cell, curves[curves["metric"] == panel.metric], height)
        for axes in places[-1]:
            axes.set_xlabel("completed epochs")
    return figure


def _panel(axes: Axes, panel: Panel, cell: Cell, curves: pd.DataFrame, height: float) -> None:
    runs = [run for seeds in cell.values() for run in seeds]
    own = [run.curve(split, panel.metric).to_numpy(float) for run in runs for split in splits(panel, runs)]
    values = np.concatenate([*own, curves["value"].to_numpy(float)])
    axes.set_title(panel.title, pad=5)
    epochs = max([*(run.epochs for run in runs), *curves["epoch"]])
    set_up(axes, panel, scale_of(panel, values[np.isfinite(values)]), epochs)
    behind = list(_behind(axes, curves))
    for refinement, seeds in cell.items():
        draw_course(axes, panel, refinement, seeds)
    label_ends(axes, [*ends(panel, cell), *behind], height)


def _behind(axes: Axes, curves: pd.DataFrame) -> Iterator[End]:
    """Draws the published curves of one metric, and yields their ends."""
    for model, rows in curves.sort_values("epoch").groupby("model", sort=False):
        look = _look(str(model))
        axes.plot(
            rows["epoch"],
            rows["value"],
            color=look.colour,
            alpha=0.55,
            linewidth=1.1,
            linestyle=":" if len(rows) > 1 else "none",
            marker="none" if len(rows) > 1 else "*",
            markersize=10,
            zorder=0.9,
        )
        last = rows.iloc[-1]
        yield End(f"published {model}", look.text, float(last["epoch"]), float(last["value"]))


def _look(model: str) -> Series:
    """The style of a published model: a DEQ looks like ours, everything else like an explicit network."""
    return series("equilibrium" if "DEQ" in model else "explicit")
