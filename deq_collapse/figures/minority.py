"""The collapse curve: cosine of minority classes against the imbalance ratio, with theory (Fang 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from deq_collapse.figures.axes import LABEL, End, label_ends
from deq_collapse.figures.style import FAINT, RC, series

PARTS = {"weights": "Classifier rows", "means": "Class means"}
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 7.1, 0.55, 1.45, 0.66, 0.46  # inches
PANEL, ACROSS, DOWN, LINE = 1.75, 0.2, 0.5, 0.17
NO_THEORY = "No line of theory: it needs cvxpy, which the extra “theory” installs."


def collapse_curve(table: pd.DataFrame, theory: pd.DataFrame | None, num_classes: int) -> Figure:
    """A column for each K_A; rows are classifier rows and class means; 1 is minority collapse.

    Points are seeds, lines join their medians, and dotted lines with crosses are the layer-peeled optimum at
    the networks' own energies. A triangle on the upper edge marks R0, the median over the line's settings.

    Args:
        table: from `minority_table`, not empty.
        theory: from `theory_table`.
        num_classes: K.
    """
    majorities = sorted(table["majority"].unique())
    words = [NO_THEORY] if theory is None else list(_critical_words(theory))
    height = TOP + len(PARTS) * (PANEL + DOWN) - DOWN + BOTTOM + LINE * len(words)
    columns = max(len(majorities), 2)
    width = min((WIDTH - LEFT - RIGHT - (len(majorities) - 1) * ACROSS) / columns, 3.2)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, height))
        for row, (part, title) in enumerate(PARTS.items()):
            for column, majority in enumerate(majorities):
                x, y = LEFT + column * (width + ACROSS), height - TOP - PANEL - row * (PANEL + DOWN)
                axes = figure.add_axes((x / WIDTH, y / height, width / WIDTH, PANEL / height))
                own = table[table["majority"] == majority]
                predicted = None if theory is None else theory[theory["majority"] == majority]
                axes.set_title(
                    f"{title}, $K_A$={majority}" if not column else f"$K_A$={majority}",
                    fontsize=8.5,
                    pad=8,
                    weight="normal",
                )
                _set_up(axes, table, num_classes)
                _draw(axes, own, predicted, part)
                axes.tick_params(labelleft=not column, labelbottom=row == len(PARTS) - 1)
                if column == len(majorities) - 1:
                    etf = End("simplex ETF", FAINT, axes.get_xlim()[1], -1 / (num_classes - 1))
                    label_ends(axes, [*_ends(own, predicted, part), etf], PANEL)
        title = "Minority collapse: mean cosine between minority classes"
        figure.text(LEFT / WIDTH, 1 - 0.17 / height, title, fontsize=10.5, weight="bold")
        figure.text(LEFT / WIDTH, (0.1 + LINE * len(words)) / height, "imbalance ratio R", color=FAINT)
        for line, text in enumerate(words):
            y = (0.09 + LINE * (len(words) - 1 - line)) / height
            figure.text(LEFT / WIDTH, y, text, fontsize=LABEL)
    return figure


def _set_up(axes: Axes, table: pd.DataFrame, num_classes: int) -> None:
    ratios = sorted({float(f"{ratio:.2g}") for ratio in table["ratio"]})
    axes.set_xscale("log")
    axes.set_xlim(ratios[0] / 1.15, ratios[-1] * 1.3)
    axes.xaxis.set_major_locator(FixedLocator(ratios))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low = float(np.nanmin([*table["weights"], *table["means"], -1 / (num_classes - 1)]))
    axes.set_ylim(low - 0.06, 1.04)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.axhline(-1 / (num_classes - 1), color=FAINT, linewidth=0.7, linestyle=(0, (1, 2)))


def _draw(axes: Axes, own: pd.DataFrame, predicted: pd.DataFrame | None, part: str) -> None:
    for refinement, rows in own.groupby("refinement"):
        look = series(str(refinement))
        fill = look.colour if look.filled else "white"
        median = _medians(rows, part)
        axes.plot(median["ratio"], median[part], color=look.colour, linewidth=1.6, zorder=2)
        axes.plot(
            rows["ratio"],
            rows[part],
            linestyle="",
            marker=look.marker,
            markersize=4.2,
            markeredgecolor=look.colour,
            markerfacecolor=fill,
            zorder=3,
            gid=f"seeds-{refinement}",
        )
    for refinement, rows in () if predicted is None else predicted.groupby("refinement"):
        look, line = series(str(refinement)), rows.sort_values("ratio")
        axes.plot(
            line["ratio"],
            line[part],
            color=look.text,
            linewidth=0.9,
            linestyle=(0, (1, 1.6)),
            marker="x",
            markersize=4,
            zorder=2,
        )
        critical = float(line["critical"].median())
        if part == "weights" and critical <= axes.get_xlim()[1]:
            axes.plot(
                [critical],
                [axes.get_ylim()[1]],
                marker="v",
                markersize=6.5,
                color=look.colour,
                markerfacecolor=look.colour if look.filled else "white",
                clip_on=False,
                zorder=5,
                gid=f"R0-{refinement}",
            )


def _medians(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """The medians of every setting, by increasing R."""
    return rows.groupby("setting").agg({"ratio": "first", part: "median"}).sort_values("ratio")


def _ends(own: pd.DataFrame, predicted: pd.DataFrame | None, part: str) -> Iterator[End]:
    for name, table in (("", own), (", theory", predicted)):
        for refinement, rows in () if table is None else table.groupby("refinement"):
            median = _medians(rows, part).dropna()
            if len(median):
                last = median.iloc[-1]
                yield End(f"{refinement}{name}", series(str(refinement)).text, last["ratio"], last[part])


def _critical_words(theory: pd.DataFrame) -> Iterator[str]:
    yield "Dotted: the layer-peeled optimum at the networks’ own energies, where the rows of minority classes"
    yield "coincide from a critical ratio R₀ on (triangles: medians over R; in brackets their span):"
    for majority, rows in theory.groupby("majority"):
        parts = [f"{name} {_span(line['critical'])}" for name, line in rows.groupby("refinement", sort=False)]
        yield f"$K_A$={majority}: R₀ of " + ", of ".join(parts)


def _span(values: pd.Series[float]) -> str:
    middle, low, high = (_ratio(float(value)) for value in (values.median(), values.min(), values.max()))
    return middle if low == high else f"{middle} ({low} to {high})"


def _ratio(value: float) -> str:
    if math.isinf(value):
        return "above 10⁸"
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.2g}"
