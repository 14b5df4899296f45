"""Collapse curves: NC1 to NC4, error and accuracies against epochs, both refinements in the same axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from deq_collapse.study.records import Run
from deq_collapse.study.style import FAINT, RC, Series, series, spread

Cell = Mapping[str, Sequence[Run]]
"""The runs of one setting by refinement; a sequence holds the seeds."""

SPLITS = ("train", "test")
WIDTH, PANEL, GAP = 5.6, 1.5, 0.52  # inches
LEFT, RIGHT, BOTTOM = 0.55, 1.45, 0.5
LABEL = 8.5  # points


@dataclass(frozen=True)
class Panel:
    """One set of axes: a metric, its title, and whether its values span decades."""

    metric: str
    title: str
    decades: bool = True


PANELS = (
    Panel("nc1", "NC1: within-class over between-class variability"),
    Panel("nc2_etf_means", "NC2: distance of class means to the simplex ETF"),
    Panel("nc3", "NC3: distance of classifier to class means"),
    Panel("nc4", "NC4: share not classified by the nearest class mean"),
    Panel("error", "Error: share of images misclassified"),
    Panel("accuracy_majority", "Accuracy on the majority classes", decades=False),
    Panel("accuracy_minority", "Accuracy on the minority classes", decades=False),
)


@dataclass(frozen=True)
class Scale:
    """A vertical axis shared by all settings; `floor` is where it turns linear to hold exact zeros."""

    low: float
    high: float
    floor: float | None


def shared_scales(runs: Iterable[Run]) -> dict[str, Scale]:
    """One scale per metric that any run logged, so that settings can be compared by eye."""
    history = pd.concat([run.history for run in runs])
    history = history[history["split"].isin(SPLITS) & np.isfinite(history["value"])]
    scales = {}
    for panel in PANELS:
        values = history.loc[history["metric"] == panel.metric, "value"].to_numpy(dtype=float)
        if len(values):
            scales[panel.metric] = _log_scale(values) if panel.decades else _linear_scale(values)
    return scales


def _log_scale(values: NDArray[np.float64]) -> Scale:
    positive = values[values > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1e-2, 1.0)
    if len(positive) < len(values):
        floor = float(10.0 ** np.floor(np.log10(low)))
        return Scale(-0.12 * floor, max(high * 1.3, 2 * floor), floor)
    return Scale(low / 1.3, high * 1.3, None)


def _linear_scale(values: NDArray[np.float64]) -> Scale:
    return Scale(min(float(values.min()), 0.9) - 0.02, 1.02, None)


def collapse_curves(cell: Cell, scales: Mapping[str, Scale], columns: int = 1) -> Figure:
    """Panels for one setting, in columns: every metric of `PANELS` that its runs logged, against epochs.

    Training curves are thick with marks, test curves thin and dashed. Of several seeds the median is drawn
    in a band from the lowest to the highest. A diamond on the training curve and a vertical rule mark the
    first epoch with training error 0 of each run; both carry the gid `terminal-<metric>-<run name>`.
    """
    runs = [run for seeds in cell.values() for run in seeds]
    logged = set().union(*(run.history["metric"] for run in runs))
    panels = [panel for panel in PANELS if panel.metric in logged and panel.metric in scales]
    notes = [(refinement, _terminal_note(refinement, seeds)) for refinement, seeds in cell.items()]
    top = 0.36 + 0.17 * len(notes)
    rows = -(-len(panels) // columns)
    height = top + BOTTOM + PANEL * rows + GAP * (rows - 1)
    width = WIDTH * columns
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height))
        for place, panel in enumerate(panels):
            row, column = divmod(place, columns)
            bottom = height - top - PANEL - row * (PANEL + GAP)
            left = LEFT + column * WIDTH
            axes = figure.add_axes(
                (left / width, bottom / height, (WIDTH - LEFT - RIGHT) / width, PANEL / height)
            )
            axes.set_title(panel.title, pad=5)
            _set_up(axes, panel, scales[panel.metric], max(run.epochs for run in runs))
            for refinement, seeds in cell.items():
                _draw(axes, panel.metric, refinement, seeds)
            _label_ends(axes, panel.metric, cell)
        for axes in figure.axes[-columns:]:
            axes.set_xlabel("completed epochs")
        for line, (refinement, note) in enumerate(notes):
            y = 1 - (0.14 + 0.17 * line) / height
            figure.text(LEFT / width, y, note, color=series(refinement).text, fontsize=LABEL, va="center")
    return figure


def _terminal_note(refinement: str, runs: Sequence[Run]) -> str:
    """What the rules and diamonds of one refinement say, in words."""
    epochs = sorted(run.terminal_epoch for run in runs if run.terminal_epoch is not None)
    if not epochs:
        return f"{refinement}: training error never 0"
    span = f"epoch {epochs[0]}" if epochs[0] == epochs[-1] else f"epochs {epochs[0]} to {epochs[-1]}"
    some = "" if len(epochs) == len(runs) else f" ({len(epochs)} of {len(runs)} seeds)"
    return f"◇ {refinement}: training error first 0 at {span}{some}"


def _set_up(axes: Axes, panel: Panel, scale: Scale, epochs: int) -> None:
    axes.set_xlim(0, epochs)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if not panel.decades:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    elif scale.floor is None:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=scale.floor, linscale=0.35)
    axes.set_ylim(scale.low, scale.high)
    if panel.decades:
        ticks = _ticks(scale)
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_minor_locator(NullLocator())
        plain = min(tick for tick in ticks if tick > 0) >= 1e-3 and max(ticks) <= 1e3
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if plain else _power(value))
        )
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def _ticks(scale: Scale) -> list[float]:
    """Decades (thinned to six), or 1, 2, 5 where they span less than two, or round steps where they span less
    than two thirds of one; and 0 where the axis holds it.
    """
    low = scale.low if scale.floor is None else scale.floor
    if scale.floor is None and np.log10(scale.high / low) < 2 / 3:
        steps = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, scale.high)
        return [float(step) for step in steps if low <= step <= scale.high]
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(scale.high))) + 1)
    subs = (1, 2, 5) if np.log10(scale.high / low) < 2 and scale.floor is None else (1,)
    every = max(1, -(-len(exponents) // 6))
    ticks = [sub * 10.0**e for e in exponents if e % every == 0 for sub in subs]
    return ([0.0] if scale.floor is not None else []) + [t for t in ticks if low * 0.999 <= t <= scale.high]


def _power(value: float) -> str:
    """`0.001` as 10⁻³, in characters, so that it is set in the page's font."""
    if value == 0:
        return "0"
    exponent = int(np.floor(np.log10(value) + 1e-9))
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    factor = round(value / 10.0**exponent)
    return power if factor == 1 else f"{factor}·{power}"


def _seeds(runs: Sequence[Run], split: str, metric: str) -> pd.DataFrame:
    """Epochs down, one column per run that logged this curve; what is not finite is a gap."""
    curves = [run.curve(split, metric).rename(run.name) for run in runs]
    table = pd.concat([curve for curve in curves if len(curve)] or curves, axis=1)
    return table.where(np.isfinite(table))


def _draw(axes: Axes, metric: str, refinement: str, runs: Sequence[Run]) -> None:
    """Median and band of one refinement on both splits, and the marks of its terminal phases."""
    look = series(refinement)
    medians = {}
    for split in SPLITS:
        table = _seeds(runs, split, metric)
        medians[split] = table.median(axis=1).dropna()
        if table.shape[1] > 1:
            low, high = table.min(axis=1), table.max(axis=1)
            axes.fill_between(table.index, low, high, color=look.colour, alpha=0.18, linewidth=0)
    axes.plot(medians["test"], color=look.colour, linewidth=0.9, linestyle=(0, (4, 1.6)))
    axes.plot(
        medians["train"],
        color=look.colour,
        linewidth=1.9,
        marker=look.marker,
        markersize=4.2,
        markerfacecolor=look.colour if look.filled else "white",
        markevery=(0.04 if look.filled else 0.09, 0.13),  # close curves do not hide each other's marks
    )
    for run in runs:
        if run.terminal_epoch is not None:
            _mark_terminal(axes, run.terminal_epoch, medians["train"], look, f"terminal-{metric}-{run.name}")


def _mark_terminal(axes: Axes, epoch: int, curve: pd.Series[float], look: Series, gid: str) -> None:
    """A rule at the first epoch with training error 0 and, on the training curve, a diamond."""
    axes.axvline(epoch, color=look.colour, linewidth=0.7, alpha=0.5, zorder=0.5, gid=gid)
    if len(curve):
        value = np.interp(epoch, curve.index.to_numpy(dtype=float), curve.to_numpy(dtype=float))
        axes.plot(
            [epoch],
            [value],
            marker="D",
            markersize=6.5,
            color=look.colour,
            markerfacecolor="white",
            markeredgewidth=1.5,
            zorder=5,
            clip_on=False,
            gid=gid,
        )


def _label_ends(axes: Axes, metric: str, cell: Cell) -> None:
    """Name every curve where it ends, moved apart where ends are close."""
    ends = []
    for refinement, runs in cell.items():
        for split in SPLITS:
            median = _seeds(runs, split, metric).median(axis=1).dropna()
            if len(median):
                ends.append((refinement, split, float(median.index[-1]), float(median.iloc[-1])))
    points = np.array([axes.transData.transform((x, y)) for _, _, x, y in ends]).reshape(-1, 2)
    anchors = axes.transAxes.inverted().transform(points)
    gap = (LABEL + 1.5) / (PANEL * 72)
    heights = spread(anchors[:, 1].tolist(), gap, 0.02, 0.98)
    for (refinement, split, *_), (x, y), height in zip(ends, anchors, heights, strict=True):
        axes.annotate(
            f"{refinement}, {split}",
            xy=(x, y),
            xytext=(1.045, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=series(refinement).text,
            fontsize=LABEL,
            va="center",
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2},
        )
