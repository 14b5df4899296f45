"""Figure of effects epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from deq_collapse.analysis.by_epoch import EffectCurve
from deq_collapse.analysis.curves import LOSS
from deq_collapse.figures.effect_scale import AXIS, drawn, no_effect, set_ticks, window_of
from deq_collapse.figures.effects import shown
from deq_collapse.figures.style import COLOURS, DASHES, FAINT, INK, RC
from deq_collapse.runs.setting import short

WIDTH, LEFT, RIGHT, GAP = 7.1, 0.5, 0.08, 0.46  # inches
TOP, HEAD, PANEL, BOTTOM = 0.4, 0.44, 0.85, 0.42
LEGEND, LETTER = 0.18, 0.072  # of a legend, and of each of its letters


def effect_curves_figure(curves: Sequence[EffectCurve]) -> Figure:
    """A row for every contrast, a column for every measure: the effect after each measured epoch, with its
    95% interval as a band and a line for every place; a rule at no effect. Epochs are logarithmic.

    A column has one scale, so that contrasts can be compared by eye. The number of pairs stands in each
    panel. Measures are those `shown`, and the training loss.
    """
    rows = [[c for c in curves if c.contrast == each] for each in dict.fromkeys(c.contrast for c in curves)]
    measures = list(dict.fromkeys(curve.measure for curve in curves))
    measures = [measure for measure in measures if measure is LOSS or measure in shown(measures)]
    head = HEAD + LEGEND * any(len(_places(row)) > 1 for row in rows)
    height = TOP + (head + PANEL) * len(rows) + BOTTOM
    panel = (WIDTH - LEFT - RIGHT - GAP * (len(measures) - 1)) / len(measures)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, height))
        for column, measure in enumerate(measures):
            left = (LEFT + column * (panel + GAP)) / WIDTH
            for words, y, colour in ((measure.title, 0.12, INK), (AXIS[measure.kind], 0.27, FAINT)):
                figure.text(left, 1 - y / height, words, color=colour, fontsize=8.5, va="center")
            of_measure = [curve for curve in curves if curve.measure is measure]
            for i, row in enumerate(rows):
                bottom = (height - TOP - (head + PANEL) * (i + 1)) / height
                axes = figure.add_axes((left, bottom, panel / WIDTH, PANEL / height))
                _draw(axes, [curve for curve in of_measure if curve in row], _places(row))
                _finish(axes, of_measure)
                axes.tick_params(axis="x", labelbottom=i == len(rows) - 1)
        for i, row in enumerate(rows):
            _name(figure, row, height - TOP - (head + PANEL) * i - 0.18)
        figure.text(LEFT / WIDTH, 0.1 / height, "completed epochs", color=FAINT, va="center")
    return figure


def _places(row: Sequence[EffectCurve]) -> list[str]:
    """Each has a colour and a dash, by its place in this list."""
    return list(dict.fromkeys(curve.place for curve in row))


def _draw(axes: Axes, curves: Sequence[EffectCurve], places: Sequence[str]) -> None:
    """The lines and bands of one panel, and the number of their pairs."""
    for curve in curves:
        look = places.index(curve.place)
        colour, dash = COLOURS[look % len(COLOURS)], DASHES[look % len(DASHES)]
        epochs = list(curve.comparisons)
        low, middle, high = zip(*(drawn(curve.measure, c) for c in curve.comparisons.values()), strict=True)
        axes.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(epochs, middle, color=colour, linestyle=dash, linewidth=1.4, marker="o", markersize=2.6)
    if curves:
        fewest, most = min(curve.n for curve in curves), max(curve.n for curve in curves)
        words = f"n = {most}" if fewest == most else f"n = {fewest} to {most}"
        axes.text(1, 1.02, words, transform=axes.transAxes, ha="right", color=FAINT, fontsize=7.5)


def _finish(axes: Axes, of_measure: Sequence[EffectCurve]) -> None:
    """The scales that a column shares, and the rule at no effect."""
    measure = of_measure[0].measure
    window = window_of(measure, [c for curve in of_measure for c in curve.comparisons.values()])
    axes.axhline(no_effect(measure), color=FAINT, linewidth=0.8, zorder=0)
    if measure.kind == "factor":
        axes.set_yscale("log")
    axes.set_ylim(*window)
    set_ticks(axes.yaxis, measure, window)
    axes.yaxis.set_minor_locator(NullLocator())
    epochs = {epoch for curve in of_measure for epoch in curve.comparisons}
    axes.set_xscale("log")
    axes.set_xlim(min(epochs) / 1.15, max(epochs) * 1.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:g}"))
    axes.tick_params(labelsize=7.5)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def _name(figure: Figure, row: Sequence[EffectCurve], y: float) -> None:
    """The contrast of a row that many inches up, and below it the names of its places if it has several."""
    contrast, places, height = row[0].contrast, _places(row), figure.get_figheight()
    words = f"{contrast.name}: {short(contrast.before)} → {short(contrast.after)}"
    figure.text(0.06 / WIDTH, y / height, words, weight="bold", va="center")
    x = LEFT
    for look, place in enumerate(places if len(places) > 1 else ()):
        colour = COLOURS[look % len(COLOURS)]
        figure.text(x / WIDTH, (y - LEGEND) / height, place, color=colour, fontsize=8.5, va="center")
        x += LETTER * len(place) + 0.2
