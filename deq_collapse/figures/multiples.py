"""Small multiples: one metric, with one small set of axes per setting, all on one scale."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deq_collapse.analysis.arrangement import Cell, arranged
from deq_collapse.figures.axes import Panel, Scale, label_ends, room_for, set_vertical
from deq_collapse.figures.curves import draw_course, ends, mark_terminal
from deq_collapse.figures.style import FAINT, RC, series
from deq_collapse.runs.record import Run

WIDTH = 7.1
"""In inches: the text width of letter paper or A4."""
LEFT, RIGHT, TOP, BOTTOM = 0.55, 1.5, 0.52, 0.46
PANEL, ACROSS, DOWN = 1.12, 0.2, 0.42


def metric_multiples(panel: Panel, cells: Mapping[str, Cell], scale: Scale) -> Figure:
    """One metric against epochs in every setting that logged it; rows are K_A and columns R in such a grid.

    Lines are as in `curves.collapse_curves`, named at the right of every row. Diamond and rule mark the
    median epoch of the terminal phase over the seeds that reached it; a band behind the rule spans those
    seeds. If some did not reach it, the number that did is written beside the rule. All carry the gid
    `terminal-<setting>-<refinement>`.
    """
    cells = {setting: cell for setting, cell in cells.items() if list(ends(panel, cell))}
    rows = arranged(cells)
    epochs = max(run.epochs for cell in cells.values() for runs in cell.values() for run in runs)
    with matplotlib.rc_context(RC):
        named = {last: list(ends(panel, cells[last])) for last in ends_of(rows)}
        names = [end.name for some in named.values() for end in some]
        figure, places = page(rows, panel.title, PANEL, names)
        for setting, axes in places.items():
            _panel(axes, panel, cells[setting], scale, epochs, setting)
        for last, some in named.items():
            label_ends(places[last], some, PANEL)
        across(figure, rows, places, "completed epochs")
    return figure


def page(
    rows: Sequence[Sequence[str | None]], title: str, height: float, names: Iterable[str]
) -> tuple[Figure, dict[str, Axes]]:
    """A page of axes with free room at its right for the names of lines, each under its setting's words.

    Args:
        rows: settings in their places, see `arrangement.arranged`.
        title: of the page.
        height: of the axes, in inches.
        names: of lines.
    """
    columns = max(len(row) for row in rows)
    width = (WIDTH - LEFT - RIGHT - (columns - 1) * ACROSS) / max(columns, 2)  # keeps a single one small
    whole = TOP + len(rows) * (height + DOWN) - DOWN + BOTTOM
    page_width = WIDTH - RIGHT + room_for(names, RIGHT)
    figure, places = Figure(figsize=(page_width, whole)), {}
    figure.text(LEFT / page_width, 1 - 0.17 / whole, title, fontsize=10.5, weight="bold")
    for i, row in enumerate(rows):
        for j, setting in enumerate(row):
            if setting is None:
                continue
            x, y = LEFT + j * (width + ACROSS), whole - TOP - height - i * (height + DOWN)
            axes = figure.add_axes((x / page_width, y / whole, width / page_width, height / whole))
            axes.set_title(setting.replace("K_A", "$K_A$"), fontsize=8.5, pad=4, weight="normal")
            places[setting] = axes
    return figure, places


def ends_of(rows: Sequence[Sequence[str | None]]) -> Iterator[str]:
    """The last setting of every row, to whose right the lines are named."""
    for row in rows:
        *_, last = (setting for setting in row if setting)
        yield last


def across(
    figure: Figure, rows: Sequence[Sequence[str | None]], places: Mapping[str, Axes], words: str
) -> None:
    """Keep tick labels only on the first axes of every row and the last of every column, and name the
    horizontal axes of the whole page.
    """
    for i, row in enumerate(rows):
        shown = [j for j, setting in enumerate(row) if setting]
        for j in shown:
            below = i + 1 < len(rows) and j < len(rows[i + 1]) and rows[i + 1][j]
            axes = places[str(row[j])]
            axes.tick_params(labelbottom=not below, labelleft=j == shown[0])
    figure.text(LEFT / figure.get_figwidth(), 0.09 / figure.get_figheight(), words, color=FAINT)


def _panel(axes: Axes, panel: Panel, cell: Cell, scale: Scale, epochs: int, setting: str) -> None:
    axes.set_xlim(0, epochs)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    set_vertical(axes, panel, scale)
    for place, (refinement, runs) in enumerate(cell.items()):
        median = draw_course(axes, panel, refinement, runs)
        _mark(axes, refinement, runs, median, f"terminal-{setting}-{refinement}", place)


def _mark(
    axes: Axes, refinement: str, runs: Sequence[Run], median: pd.Series[float], gid: str, place: int
) -> None:
    reached = [run.terminal_epoch for run in runs if run.terminal_epoch is not None]
    if not reached:
        return
    look, middle = series(refinement), float(np.median(reached))
    mark_terminal(axes, middle, median, look, gid)
    axes.axvspan(min(reached), max(reached), color=look.colour, alpha=0.1, linewidth=0, zorder=0, gid=gid)
    if len(reached) < len(runs):
        axes.annotate(
            f"{len(reached)} of {len(runs)}",
            (middle, 0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 2 + 8 * place),  # stacked, as epochs may be close
            textcoords="offset points",
            fontsize=7,
            color=look.text,
        )
