"""Collapse curves: accuracies, NC1 to NC4 and loss against epochs, all refinements in the same axes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deq_collapse.analysis.arrangement import Cell
from deq_collapse.figures.axes import LABEL, End, Panel, Scale, label_ends, room_for, scale_of, set_vertical
from deq_collapse.figures.style import RC, Series, series
from deq_collapse.runs.record import Run
from deq_collapse.runs.setting import short

WIDTH, PANEL, GAP = 5.6, 1.5, 0.52  # inches
LEFT, RIGHT, BOTTOM = 0.55, 1.62, 0.5

PANELS = (
    Panel("accuracy", "Accuracy: share of images classified correctly", decades=False),
    Panel("nc1", "NC1: within-class over between-class variability"),
    Panel("nc2_etf_means", "NC2: distance of class means to the simplex ETF"),
    Panel("nc3", "NC3: distance of classifier to class means"),
    Panel("nc4", "NC4: share not classified by the nearest class mean"),
    Panel("loss", "Training loss", train_only=True),
    Panel("accuracy_majority", "Accuracy on the majority classes", decades=False),
    Panel("accuracy_minority", "Accuracy on the minority classes", decades=False),
)


def panels(runs: Iterable[Run]) -> tuple[Panel, ...]:
    """`PANELS`, with the criteria of these runs in the title of the loss."""
    criteria = sorted({run.saved.criterion for run in runs if run.saved.criterion})
    loss = ": ".join(["Training loss", *([", ".join(criteria)] if criteria else [])])
    return tuple(replace(panel, title=loss) if panel.metric == "loss" else panel for panel in PANELS)


def splits(panel: Panel, runs: Sequence[Run]) -> tuple[str, ...]:
    """The splits drawn for one metric: the training split and, unless `train_only`, the held-out one."""
    return ("train",) if panel.train_only else ("train", runs[0].held_out)


def shared_scales(runs: Iterable[Run]) -> dict[str, Scale]:
    """One scale per metric that any run logged, so that settings can be compared by eye."""
    runs, scales = list(runs), {}
    for panel in PANELS:
        curves = [run.curve(split, panel.metric) for run in runs for split in splits(panel, [run])]
        values = np.concatenate([curve.to_numpy(dtype=float) for curve in curves] or [np.empty(0)])
        if np.isfinite(values).any():
            scales[panel.metric] = scale_of(panel, values[np.isfinite(values)])
    return scales


def collapse_curves(cell: Cell, scales: Mapping[str, Scale], columns: int = 1) -> Figure:
    """Panels for one setting, in columns: all metrics of `PANELS` that its runs logged, against epochs.

    Training curves are thick with marks; held-out curves are thin and dashed. For several seeds, the median
    is drawn with a band from the lowest to the highest. A diamond on the training curve and a vertical rule
    mark the first epoch with training error 0 of each run; both carry the gid `terminal-<metric>-<run name>`.
    """
    runs = [run for seeds in cell.values() for run in seeds]
    logged = set().union(*(run.history["metric"] for run in runs))
    drawn = [panel for panel in panels(runs) if panel.metric in logged and panel.metric in scales]
    notes = [(refinement, _terminal_note(refinement, seeds)) for refinement, seeds in cell.items()]
    top = 0.36 + 0.17 * len(notes)
    rows = -(-len(drawn) // columns)
    height = top + BOTTOM + PANEL * rows + GAP * (rows - 1)
    named = [list(ends(panel, cell)) for panel in drawn]
    right = room_for((end.name for some in named for end in some), RIGHT)
    each = WIDTH - RIGHT + right
    width = each * columns
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width, height))
        for place, panel in enumerate(drawn):
            row, column = divmod(place, columns)
            bottom = height - top - PANEL - row * (PANEL + GAP)
            left = LEFT + column * each
            axes = figure.add_axes(
                (left / width, bottom / height, (WIDTH - LEFT - RIGHT) / width, PANEL / height)
            )
            axes.set_title(panel.title, pad=5)
            set_up(axes, panel, scales[panel.metric], max(run.epochs for run in runs))
            for refinement, seeds in cell.items():
                median = draw_course(axes, panel, refinement, seeds)
                for run in seeds:
                    if run.terminal_epoch is not None:
                        gid = f"terminal-{panel.metric}-{run.name}"
                        mark_terminal(axes, run.terminal_epoch, median, series(refinement), gid)
            label_ends(axes, named[place], PANEL)
        for axes in figure.axes[-columns:]:
            axes.set_xlabel("completed epochs")
        for line, (refinement, note) in enumerate(notes):
            y = 1 - (0.14 + 0.17 * line) / height
            figure.text(LEFT / width, y, note, color=series(refinement).text, fontsize=LABEL, va="center")
    return figure


def _terminal_note(refinement: str, runs: Sequence[Run]) -> str:
    """The meaning of the rules and diamonds of one refinement in words."""
    epochs = sorted(run.terminal_epoch for run in runs if run.terminal_epoch is not None)
    if not epochs:
        return f"{short(refinement)}: training error never 0"
    span = f"epoch {epochs[0]}" if epochs[0] == epochs[-1] else f"epochs {epochs[0]} to {epochs[-1]}"
    some = "" if len(epochs) == len(runs) else f" ({len(epochs)} of {len(runs)} seeds)"
    return f"◇ {short(refinement)}: training error first 0 at {span}{some}"


def set_up(axes: Axes, panel: Panel, scale: Scale, epochs: int) -> None:
    """Set up horizontal epochs and the panel's vertical scale."""
    axes.set_xlim(0, epochs)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    set_vertical(axes, panel, scale)


def _seeds(runs: Sequence[Run], split: str, metric: str) -> pd.DataFrame:
    """A row per epoch and a column per run that logged this curve; non-finite values are gaps."""
    curves = [run.curve(split, metric).rename(run.name) for run in runs]
    table = pd.concat([curve for curve in curves if len(curve)] or curves, axis=1)
    return table.where(np.isfinite(table))


def draw_course(axes: Axes, panel: Panel, refinement: str, runs: Sequence[Run]) -> pd.Series[float]:
    """Median and band of one refinement on every split drawn; returns the median on the training split."""
    look, medians = series(refinement), {}
    for split in splits(panel, runs):
        table = _seeds(runs, split, panel.metric)
        medians[split] = table.median(axis=1).dropna()
        if table.shape[1] > 1:
            low, high = table.min(axis=1), table.max(axis=1)
            axes.fill_between(table.index, low, high, color=look.colour, alpha=0.18, linewidth=0)
        if split != "train":
            axes.plot(medians[split], color=look.colour, linewidth=0.9, linestyle=(0, (4, 1.6)))
    axes.plot(
        medians["train"],
        color=look.colour,
        linewidth=1.9,
        marker=look.marker,
        markersize=4.2,
        markerfacecolor=look.colour if look.filled else "white",
        markevery=(0.04 if look.filled else 0.09, 0.13),  # close curves do not hide each other's marks
    )
    return medians["train"]


def mark_terminal(axes: Axes, epoch: float, curve: pd.Series[float], look: Series, gid: str) -> None:
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


def ends(panel: Panel, cell: Cell) -> Iterator[End]:
    """The line ends of one panel; if only training is drawn, the name is just the refinement."""
    for refinement, runs in cell.items():
        for split in splits(panel, runs):
            median = _seeds(runs, split, panel.metric).median(axis=1).dropna()
            if len(median):
                name = short(refinement) if panel.train_only else f"{short(refinement)}, {split}"
                yield End(name, series(refinement).text, float(median.index[-1]), float(median.iloc[-1]))
