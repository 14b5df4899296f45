"""The scale on which effects on one measure are drawn: points, logarithmic factors, or differences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from deq_collapse.analysis.measures import Measure
from deq_collapse.analysis.pairing import Comparison

AXIS = {"share": "points", "factor": "ratio", "plain": "difference"}
LEAST = {"share": 1.2, "factor": math.log(1.25), "plain": 0.025}
"""Half of a scale's range, at least: effects of a percent look small, and ticks have room."""


def no_effect(measure: Measure) -> float:
    """Where two sides are equal."""
    return 1.0 if measure.kind == "factor" else 0.0


def drawn(measure: Measure, comparison: Comparison) -> tuple[float, float, float]:
    """The interval's lower end, the effect and the upper end as they are drawn; ends may be nan."""
    factor = 100.0 if measure.kind == "share" else 1.0
    low, high = comparison.interval
    return factor * low, factor * comparison.effect, factor * high


def window_of(measure: Measure, comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """The range of a scale: all effects and no effect, and each interval as far as three times the median
    half width from its effect; where that is a narrow one, `LEAST` to both sides of no effect.
    """
    ratio = measure.kind == "factor"
    scaled = np.array([drawn(measure, comparison) for comparison in comparisons])
    low, middle, high = (np.log(scaled) if ratio else scaled).T
    told = np.isfinite(low)
    reach = 3 * np.quantile((high - low)[told] / 2, 0.5, method="lower") if told.any() else 0.0
    first = min(0.0, *np.where(told, np.fmax(low, middle - reach), middle))
    last = max(0.0, *np.where(told, np.fmin(high, middle + reach), middle))
    least = LEAST[measure.kind]
    if last - first < 2 * least:
        first, last = min(first, -least), max(last, least)
    margin = 0.06 * (last - first)
    first, last = first - margin, last + margin
    return (math.exp(first), math.exp(last)) if ratio else (first, last)


def set_ticks(axis: Axis, measure: Measure, window: tuple[float, float]) -> None:
    """Give an axis, logarithmic for a factor, the ticks of a window, and their labels."""
    if measure.kind == "factor":
        axis.set_major_locator(FixedLocator(_ratios(math.log10(window[1] / window[0]))))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(FixedLocator(MaxNLocator(3).tick_values(*window)))


def _ratios(decades: float) -> list[float]:
    """Ticks of a scale of ratios over that many decades, as many as have room."""
    if decades < 0.25:
        return [0.7, 0.85, 1.0, 1.2, 1.4]
    if decades < 0.4:
        return [0.5, 0.7, 1.0, 1.4, 2.0]
    if decades < 1.5:
        return [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    if decades < 2.5:
        return [0.01, 0.05, 0.2, 1.0, 5.0, 20.0, 100.0]
    step = math.ceil(decades / 3)
    return [10.0**e for e in range(-6 * step, 7 * step, step)]
