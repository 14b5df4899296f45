"""Shared parts of the axes of all curves: scales that include exact zeros, ticks, and names at line ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from deq_collapse.figures.style import FAINT, spread

LABEL = 8.5  # points
LETTER = 0.066  # inches of such a label, each


@dataclass(frozen=True)
class Panel:
    """One set of axes: a metric, its title, whether it spans decades, whether to draw only the training
    split.
    """

    metric: str
    title: str
    decades: bool = True
    train_only: bool = False


@dataclass(frozen=True)
class Scale:
    """A vertical axis shared by all settings; below `floor` it is linear, to include exact zeros."""

    low: float
    high: float
    floor: float | None


def scale_of(panel: Panel, values: NDArray[np.float64]) -> Scale:
    """The scale that includes all of a panel's finite `values`, of which there is at least one."""
    return _log_scale(values) if panel.decades else _linear_scale(values)


def _log_scale(values: NDArray[np.float64]) -> Scale:
    positive = values[values > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1e-2, 1.0)
    if len(positive) < len(values):
        floor = float(10.0 ** np.floor(np.log10(low)))
        return Scale(-0.12 * floor, max(high * 1.3, 2 * floor), floor)
    return Scale(low / 1.3, high * 1.3, None)


def _linear_scale(values: NDArray[np.float64]) -> Scale:
    return Scale(min(float(values.min()), 0.9) - 0.02, 1.02, None)


def set_vertical(axes: Axes, panel: Panel, scale: Scale) -> None:
    """Give axes a panel's vertical scale, its ticks and a faint grid."""
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
    """Decades (thinned to six); 1, 2, 5 if the axis spans less than two; round steps if it spans less than
    one and fewer than three of those are visible; and 0 if the axis includes it.
    """
    low = scale.low if scale.floor is None else scale.floor
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(scale.high))) + 1)
    decades = np.log10(scale.high / low)
    subs = (1, 2, 5) if decades < 2 and scale.floor is None else (1,)
    every = max(1, -(-len(exponents) // 6))
    ticks = [sub * 10.0**e for e in exponents if e % every == 0 for sub in subs]
    ticks = [tick for tick in ticks if low * 0.999 <= tick <= scale.high]
    if scale.floor is not None:
        return [0.0, *ticks]
    if len(ticks) < 3 and decades < 1:
        steps = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, scale.high)
        return [float(step) for step in steps if low <= step <= scale.high]
    return ticks


def _power(value: float) -> str:
    """`0.001` as 10⁻³, in characters, so that the page's font is used."""
    if value == 0:
        return "0"
    exponent = int(np.floor(np.log10(value) + 1e-9))
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    factor = round(value / 10.0**exponent)
    return power if factor == 1 else f"{factor}·{power}"


@dataclass(frozen=True)
class End:
    """The end of a line, and its name there."""

    name: str
    colour: str
    x: float
    y: float


def room_for(names: Iterable[str], least: float) -> float:
    """Inches that the names of lines take at the right of their axes, and at least as many as `least`."""
    return max(least, 0.25 + LETTER * max(map(len, names), default=0))


def label_ends(axes: Axes, ends: Sequence[End], height: float) -> None:
    """Name every line at its end; names of close ends are moved apart.

    Args:
        axes: with their final limits.
        ends: of its lines.
        height: of the axes, in inches.
    """
    points = np.array([axes.transData.transform((end.x, end.y)) for end in ends]).reshape(-1, 2)
    anchors = axes.transAxes.inverted().transform(points)
    gap = (LABEL + 1.5) / (height * 72)
    heights = spread(anchors[:, 1].tolist(), gap, 0.02, 0.98)
    for end, (x, y), place in zip(ends, anchors, heights, strict=True):
        axes.annotate(
            end.name,
            xy=(x, y),
            xytext=(1.045, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=end.colour,
            fontsize=LABEL,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": FAINT,
                "linewidth": 0.5,
                "shrinkA": 1,
                "shrinkB": 2,
            },
        )
