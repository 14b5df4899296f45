"""Collapse along the computation: NC1 to NC3 against evaluations of a block, all networks in one figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from deq_collapse.analysis.arrangement import Cell, arranged
from deq_collapse.figures.axes import End, Panel, Scale, label_ends, room_for, scale_of, set_vertical
from deq_collapse.figures.curves import BOTTOM, GAP, LEFT, PANELS, RIGHT, WIDTH
from deq_collapse.figures.multiples import PANEL as MULTIPLE
from deq_collapse.figures.multiples import across, ends_of, page
from deq_collapse.figures.style import RC, Series, series
from deq_collapse.runs.along import Course
from deq_collapse.runs.record import Run
from deq_collapse.runs.setting import short

ALONG = tuple(panel for panel in PANELS if panel.metric in ("nc1", "nc2_etf_means", "nc3"))
HEIGHT = 1.7  # inches
MANY = 30
"""Evaluations beyond which the horizontal axis is logarithmic, except for its first steps."""
MARKS = ("D", "v", "P", "X")
"""Marks of further lines with the same refinement."""


def courses(runs: Iterable[Run]) -> list[Course]:
    """The tables of a study's runs that have one."""
    tables = [(run, run.along) for run in runs if run.along is not None]
    return [Course(run.name, run.axes, run.refinement, run.setting, table) for run, table in tables]


@dataclass(frozen=True)
class Line:
    """One network in a figure: its label, its style, and the tables of its seeds."""

    label: str
    look: Series
    tables: tuple[pd.DataFrame, ...]

    def curve(self, split: str, metric: str) -> pd.DataFrame:
        """Mean, low and high over seeds by evaluations; a seed keeps its value after its last evaluation."""
        seeds = []
        for table in self.tables:
            rows = table[(table["split"] == split) & (table["metric"] == metric)]
            seeds.append(rows.set_index("evaluations")["value"])
        values = pd.concat(seeds, axis=1).sort_index().ffill()
        values = values.where(np.isfinite(values))
        return pd.DataFrame(
            {"mean": values.mean(axis=1), "low": values.min(axis=1), "high": values.max(axis=1)}
        )


def lines(found: Iterable[Course]) -> dict[str, list[Line]]:
    """The lines of each setting, explicit ones first: runs of a study that differ only in the seed form one
    line, any other run is a separate line. Tables with nothing to draw are left out.
    """
    groups: dict[str, dict[tuple[str, ...], list[Course]]] = {}
    for course in found:
        if _drawable(course.table).empty:
            continue
        axes = [f"{axis}={label}" for axis, label in course.axes.items() if axis != "seed"]
        key = (course.refinement, *(axes or [course.name]))
        groups.setdefault(course.setting, {}).setdefault(key, []).append(course)
    return {setting: _lines(list(seeds.values())) for setting, seeds in groups.items()}


def _lines(groups: list[list[Course]]) -> list[Line]:
    kinds = [seeds[0].refinement for seeds in groups]
    found, seen = [], dict.fromkeys(kinds, 0)
    for seeds in sorted(groups, key=lambda seeds: seeds[0].refinement == "equilibrium"):
        kind = seeds[0].refinement
        look = series(kind)
        if seen[kind]:
            look = Series(look.colour, look.text, MARKS[(seen[kind] - 1) % len(MARKS)], look.filled)
        seen[kind] += 1
        label = short(kind) if kinds.count(kind) == 1 else seeds[0].name
        found.append(Line(label, look, tuple(course.table for course in seeds)))
    return found


def _drawable(table: pd.DataFrame) -> pd.DataFrame:
    drawable = table["metric"].isin([panel.metric for panel in ALONG]) & np.isfinite(table["value"])
    found: pd.DataFrame = table[drawable]
    return found


def along_scales(settings: Mapping[str, Sequence[Line]]) -> dict[str, Scale]:
    """One scale per metric for all settings, so that they can be compared by eye."""
    drawn = [table for lines in settings.values() for line in lines for table in line.tables]
    tables = pd.concat([_drawable(table) for table in drawn])
    scales = {}
    for panel in ALONG:
        values = tables.loc[tables["metric"] == panel.metric, "value"].to_numpy(dtype=float)
        if len(values):
            scales[panel.metric] = scale_of(panel, values)
    return scales


def along_figure(settings: Mapping[str, Sequence[Line]], scales: Mapping[str, Scale]) -> Figure:
    """A column of panels per setting: NC1, NC2 and, if known, NC3 against evaluations of a block.

    0 is H0; layers of the encoder, if watched, are below it. Training curves are thick, with marks at the
    evaluations; test curves are thin and dashed; dotted lines extend the last value. For several seeds, the
    mean is drawn with a band from the lowest to the highest.
    """
    panels = [panel for panel in ALONG if panel.metric in scales]
    top = 0.35 if len(settings) == 1 else 0.65
    height = top + BOTTOM + HEIGHT * len(panels) + GAP * (len(panels) - 1)
    lines = [line for drawn in settings.values() for line in drawn]
    right = room_for((f"{line.label}, {split}" for line in lines for split in _splits(line)), RIGHT)
    column_width = WIDTH - RIGHT + right
    width = column_width * len(settings)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height))
        for column, (setting, drawn) in enumerate(settings.items()):
            left = LEFT + column * column_width
            evaluations = pd.concat([table["evaluations"] for line in drawn for table in line.tables])
            limits = int(evaluations.min()), int(evaluations.max())
            if len(settings) > 1:
                figure.text(left / width, 1 - 0.16 / height, setting, fontsize=11, weight="bold", va="center")
            for row, panel in enumerate(panels):
                bottom = height - top - HEIGHT - row * (HEIGHT + GAP)
                size = ((column_width - LEFT - right) / width, HEIGHT / height)
                axes = figure.add_axes((left / width, bottom / height, *size))
                axes.set_title(panel.title, pad=5)
                _panel(axes, panel, scales[panel.metric], drawn, limits)
                label_ends(axes, list(_ends(panel.metric, drawn, limits[1])), HEIGHT)
            axes.set_xlabel(_horizontal(limits[0]))
    return figure


def along_multiples(
    metric: str, cells: Mapping[str, Cell], settings: Mapping[str, Sequence[Line]], scale: Scale
) -> Figure:
    """One metric against evaluations in every setting, arranged as in `multiples.metric_multiples`.

    Args:
        metric: one of `ALONG`.
        cells: the settings to draw; those without a line are left out.
        settings: from `lines`.
        scale: of the metric, see `along_scales`.
    """
    (panel,) = (panel for panel in ALONG if panel.metric == metric)
    rows = arranged({setting: cell for setting, cell in cells.items() if setting in settings})
    drawn = {setting: settings[setting] for row in rows for setting in row if setting}
    tables = [table for lines in drawn.values() for line in lines for table in line.tables]
    evaluations = pd.concat([table["evaluations"] for table in tables])
    limits = int(evaluations.min()), int(evaluations.max())
    with matplotlib.rc_context(RC):
        ends = {last: list(_ends(metric, drawn[last], limits[1])) for last in ends_of(rows)}
        names = [end.name for named in ends.values() for end in named]
        figure, places = page(rows, panel.title, MULTIPLE, names)
        for setting, axes in places.items():
            _panel(axes, panel, scale, drawn[setting], limits)
        for last, named in ends.items():
            label_ends(places[last], named, MULTIPLE)
        across(figure, rows, places, _horizontal(limits[0]))
    return figure


def _panel(axes: Axes, panel: Panel, scale: Scale, drawn: Sequence[Line], limits: tuple[int, int]) -> None:
    first, last = limits
    _set_horizontal(axes, first, last)
    set_vertical(axes, panel, scale)
    for line in drawn:
        for split in _splits(line):
            _draw(axes, line, split, panel.metric, last)


def _splits(line: Line) -> tuple[str, ...]:
    """The training and test splits, or the validation split if the test split was not measured."""
    measured = set().union(*(table["split"] for table in line.tables))
    return ("train", "test" if "test" in measured else "validation")


def _set_horizontal(axes: Axes, first: int, last: int) -> None:
    if last <= MANY:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        margin = 0.02 * max(last - first, 1)
    else:
        axes.set_xscale("symlog", linthresh=2, linscale=0.6)
        ticks = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
        axes.xaxis.set_major_locator(FixedLocator([*range(first, 0), *(t for t in ticks if t <= last)]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        margin = 0.1
    axes.set_xlim(first - margin, last + margin)


def _horizontal(first: int) -> str:
    words = "evaluations of a block; 0 is H0"
    return words + ", below are layers of the encoder" if first < 0 else words


def _draw(axes: Axes, line: Line, split: str, metric: str, last: int) -> None:
    curve = line.curve(split, metric).dropna()
    if curve.empty:
        return
    look, train = line.look, split == "train"
    if len(line.tables) > 1:
        axes.fill_between(
            curve.index, curve["low"], curve["high"], color=look.colour, alpha=0.18, linewidth=0
        )
    axes.plot(
        curve["mean"],
        color=look.colour,
        linewidth=1.9 if train else 0.9,
        linestyle="-" if train else (0, (4, 1.6)),
        marker=look.marker if train else None,
        markevery=1 if len(curve) <= MANY else 0.05,
        markersize=4.2,
        markerfacecolor=look.colour if look.filled else "white",
        gid=f"{line.label}-{split}-{metric}",
        clip_on=False,
    )
    end = curve.index[-1]
    axes.plot(
        [end, last],
        [curve["mean"][end]] * 2,
        color=look.colour,
        linewidth=0.8,
        linestyle=(0, (1, 2.5)),
        zorder=1,
    )


def _ends(metric: str, drawn: Sequence[Line], last: int) -> Iterator[End]:
    for line in drawn:
        for split in _splits(line):
            curve = line.curve(split, metric)["mean"].dropna()
            if len(curve):
                yield End(f"{line.label}, {split}", line.look.text, last, float(curve.iloc[-1]))
