"""Figures of effects: contrasts with their intervals, and families of networks side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from deq_collapse.analysis.contrasts import Effect, EffectTable
from deq_collapse.analysis.measures import Measure
from deq_collapse.figures.effect_scale import AXIS, drawn, no_effect, set_ticks, window_of
from deq_collapse.figures.style import FAINT, INK, RC, series
from deq_collapse.runs.record import Run
from deq_collapse.runs.setting import short

WIDTH, LEFT, ROW, TOP, BOTTOM, GAP = 7.1, 1.75, 0.19, 0.5, 0.5, 0.14  # inches
LETTER = 0.078  # inches per letter of a bold name
LINE, PANEL = 0.2, 2.3  # inches of a legend's line, and of a row of panels
EDGE = 0.58  # inches left of the panels, where 0.0005 has room
MANY = 9
"""A larger number of networks stands in rows of two panels."""
ACCURACIES = ("test_accuracy", "held_out_accuracy")
MINORITY = ("test_accuracy_minority", "held_out_accuracy_minority")
GEOMETRY = ("train_nc1", "train_nc2_etf_means", "train_nc3")


def shown(measures: Sequence[Measure]) -> list[Measure]:
    """Those that the figures show: minority accuracy, or accuracy where there is none, and NC1 to NC3."""
    accuracies = MINORITY if any(measure.key in MINORITY for measure in measures) else ACCURACIES
    return [measure for measure in measures if measure.key in accuracies + GEOMETRY]


def effects_figure(table: EffectTable) -> Figure:
    """A row for every contrast and place, a column for every measure that is `shown`: a dot at the effect, a
    line over its 95% interval; filled where p is below 0.05 after correction, a diamond for a mean over
    places, grey where there is no interval. An interval much wider than the others, as two pairs have,
    ends in arrows at the edges of its column.
    """
    measures = shown(table.measures)
    contrasts = list(dict.fromkeys(row.contrast for row in table.rows))
    heights = [i + 1.1 * contrasts.index(row.contrast) for i, row in enumerate(table.rows)]
    height = TOP + BOTTOM + ROW * (heights[-1] + 2.3)
    column = (WIDTH - LEFT - 0.12 - GAP * (len(measures) - 1)) / len(measures)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, height))
        for i, measure in enumerate(measures):
            left = LEFT + i * (column + GAP)
            axes = figure.add_axes(
                (left / WIDTH, BOTTOM / height, column / WIDTH, (height - TOP - BOTTOM) / height)
            )
            axes.set_ylim(heights[-1] + 0.7, -1.6)
            axes.patch.set_visible(False)  # a long heading extends over the next panel
            mine = [
                (effect, y, row.pooled)
                for row, y in zip(table.rows, heights, strict=True)
                for effect in row.effects
                if effect.measure is measure
            ]
            window = window_of(measure, [effect.comparison for effect, *_ in mine])
            for effect, y, pooled in mine:
                _draw(axes, effect, y, pooled, window)
            _finish(axes, measure, window)
            if i == 0:
                axes.set_yticks(heights, [row.place for row in table.rows])
                for contrast in contrasts:
                    first = heights[[row.contrast for row in table.rows].index(contrast)]
                    words = f"{contrast.name}: {short(contrast.before)} → {short(contrast.after)}"
                    axes.text(
                        0.06 - LEFT / column,
                        first - 1.0,
                        words,
                        transform=axes.get_yaxis_transform(),
                        weight="bold",
                        va="center",
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},  # over rules and grid
                    )
                axes.set_zorder(1)
            else:
                axes.set_yticks([])
    return figure


def _draw(axes: Axes, effect: Effect, y: float, pooled: bool, window: tuple[float, float]) -> None:
    low, middle, high = drawn(effect.measure, effect.comparison)
    if math.isfinite(low):
        width = 2.2 if pooled else 1.2
        ends = max(low, window[0]), min(high, window[1])
        axes.plot(ends, [y, y], color=INK, linewidth=width)
        for end, value, arrow in ((ends[0], low, "<"), (ends[1], high, ">")):
            if end != value:
                axes.plot(end, y, marker=arrow, markersize=4, color=INK, clip_on=False)
    axes.plot(
        middle,
        y,
        marker="D" if pooled else "o",
        markersize=5.5 if pooled else 4.5,
        color=INK if math.isfinite(low) else FAINT,
        markerfacecolor=INK if effect.significant else "white",
    )


def _finish(axes: Axes, measure: Measure, window: tuple[float, float]) -> None:
    """Adds the scale, and a rule at no effect."""
    ratio = measure.kind == "factor"
    axes.axvline(no_effect(measure), color=FAINT, linewidth=0.8, zorder=0)
    axes.set_title(measure.title, pad=4, fontsize=8.5)
    axes.set_xlabel(AXIS[measure.kind])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=6)  # of an arrow at the edge
    if ratio:
        axes.set_xscale("log")
    set_ticks(axes.xaxis, measure, window)
    axes.set_xlim(*window)
    to_column = axes.transData - axes.transAxes
    ticks = axes.xaxis.get_majorticklocs()
    places = to_column.transform([(tick, 0.0) for tick in ticks])[:, 0]
    # The label of a tick near the edge would meet that of the next column; that of no effect is short.
    none = no_effect(measure)
    kept = [t for t, place in zip(ticks, places, strict=True) if (0.04 if t == none else 0.085) < place < 0.9]
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def families_figure(runs: Sequence[Run], measures: Sequence[Measure], axis: str = "family") -> Figure:
    """Every family's refinements side by side, a panel for every measure: a small mark for each seed, hollow
    if the run is not `sound`, and a bar at the mean of the sound runs (of logarithms if the measure spans
    decades); no bar if half of the runs or more are not sound. Panels stand in one row, or in rows of two
    where there are many networks.
    """
    labels = list(dict.fromkeys(run.axes[axis] for run in runs))
    implicit = {run.refinement for run in runs if run.implicit}
    names = sorted(dict.fromkeys(run.refinement for run in runs), key=lambda name: name in implicit)
    networks = {(run.axes[axis], run.refinement) for run in runs}
    columns = len(measures) if len(networks) <= MANY else 2
    rows, lines = math.ceil(len(measures) / columns), _flowing(names)
    panel, key = (WIDTH - EDGE) / columns, 0.1 + LINE * len(lines)
    below, step = 0.52 if columns > 2 else 0.3, min(0.24, 0.85 / len(names))
    height = key + PANEL * rows
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, height))
        for i, measure in enumerate(measures):
            row, column = divmod(i, columns)
            bottom = height - key - PANEL * (row + 1) + below
            axes = figure.add_axes(
                (
                    (EDGE + column * panel) / WIDTH,
                    bottom / height,
                    (panel - 0.42) / WIDTH,
                    (PANEL - below - 0.28) / height,
                )
            )
            for place, label in enumerate(labels):
                family = [run for run in runs if run.axes[axis] == label]
                trained = [name for name in names if any(run.refinement == name for run in family)]
                for j, name in enumerate(trained):
                    x = place + step * (j - (len(trained) - 1) / 2)
                    of_kind = [run for run in family if run.refinement == name]
                    _swarm(axes, x, of_kind, measure, name, 0.45 * step)
            _finish_families(axes, measure, labels, tilted=columns > 2)
        for line, placed in enumerate(lines):
            y = (height - 0.15 - LINE * line) / height
            for name, x in placed:
                look = series(name)
                mark = Line2D([x / WIDTH], [y], marker=look.marker, markersize=5, color=look.colour)
                mark.set_transform(figure.transFigure)
                figure.add_artist(mark)
                figure.text((x + 0.1) / WIDTH, y, short(name), color=look.text, weight="bold", va="center")
    return figure


def _flowing(names: Sequence[str]) -> list[list[tuple[str, float]]]:
    """The names of a legend in lines that fit the figure, each with its distance from the left in inches."""
    lines: list[list[tuple[str, float]]] = [[]]
    x = 0.55
    for name in names:
        width = 0.1 + LETTER * len(short(name))
        if lines[-1] and x + width > WIDTH:
            lines, x = [*lines, []], 0.55
        lines[-1].append((name, x))
        x += width + 0.24
    return lines


def _finish_families(axes: Axes, measure: Measure, labels: Sequence[str], tilted: bool) -> None:
    """Adds the names of families, and the scale."""
    axes.set_xticks(range(len(labels)), labels)
    if tilted:
        for text in axes.get_xticklabels():
            text.set(rotation=20, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_title(measure.heading, pad=4, fontsize=8.5)
    if measure.kind == "factor":
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))  # 0.375 would reach the next panel
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def _swarm(axes: Axes, x: float, runs: Sequence[Run], measure: Measure, name: str, half: float) -> None:
    """The marks of one network's seeds, and the bar at their mean, that wide to either side."""
    factor, look = (100.0 if measure.kind == "share" else 1.0), series(name)
    values = [
        (factor * value, run.sound(measure.split))
        for run in runs
        if (value := measure.value(run)) is not None
    ]
    for k, (value, sound) in enumerate(values):
        offset = 0.6 * half * ((k * 0.618) % 1 - 0.5)  # seeds with equal values do not hide each other
        axes.plot(
            x + offset,
            value,
            marker=look.marker,
            markersize=3,
            linestyle="",
            alpha=0.55,
            color=look.colour,
            markerfacecolor=look.colour if sound else "white",
        )
    kept = [value for value, sound in values if sound]
    if 2 * len(kept) > len(values):  # else the bar would be of only a few sound runs
        mean = float(np.exp(np.mean(np.log(kept)))) if measure.kind == "factor" else float(np.mean(kept))
        axes.plot([x - half, x + half], [mean, mean], color=look.colour, linewidth=2.4, solid_capstyle="butt")
