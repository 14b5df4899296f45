"""The report's interactive curves: every run's values, and plotly's bundle, compressed."""

from __future__ import annotations

import base64
import gzip
import math
from functools import lru_cache
from typing import Any

from deq_collapse.figures.axes import Panel
from deq_collapse.figures.curves import panels
from deq_collapse.figures.style import Series, series
from deq_collapse.runs.files import SPLITS
from deq_collapse.runs.record import Run
from deq_collapse.runs.study import Study

OTHERS = (
    Panel("error", "Error: share of images misclassified"),
    Panel("balanced_accuracy", "Balanced accuracy", decades=False),
    Panel("nc1_trace_ratio", "NC1 as a ratio of traces"),
    Panel("cdnv", "Class-distance normalised variance"),
    Panel("nc2_norm_means", "NC2: spread of the norms of class means"),
    Panel("nc2_angle_means", "NC2: distance of angles of class means to the ETF’s"),
    Panel("nc2_etf_weights", "NC2: distance of classifier rows to the simplex ETF"),
    Panel("nc3_alignment", "NC3: cosine of classifier rows and class means", decades=False),
    Panel("seli_means", "Distance of class means to SELI", decades=False),
    Panel("seli_weights", "Distance of classifier rows to SELI", decades=False),
    Panel("minority_cos_weights_mean", "Cosine of minority classifier rows", decades=False),
    Panel("minority_cos_means_mean", "Cosine of minority class means", decades=False),
    Panel("spectral_radius", "Spectral radius at the fixed point", decades=False),
    Panel("last_step", "Relative size of the last step of the computation"),
)
SHAPES = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    ">": "triangle-right",
    "<": "triangle-left",
    "D": "diamond",
    "p": "pentagon",
    "*": "star",
    "P": "cross",
    "X": "x",
}
"""Plotly's names of the markers of `style.series`."""


def curve_data(study: Study) -> dict[str, Any]:
    """The data of the page's script: metrics that some run logged, the styles of refinements, and each run's
    values over epochs, to four digits; non-finite values are null. A split measured once has no curve.
    """
    shown = (*panels(study.runs), *OTHERS)
    names = [panel.metric for panel in shown]
    runs = [_run(run, names) for run in study.runs]
    logged = {metric for run in runs for values in run["splits"].values() for metric in values["metrics"]}
    looks = {run.refinement: series(run.refinement) for run in study.runs}
    return {
        "metrics": [[p.metric, p.title, p.decades] for p in shown if p.metric in logged],
        "splits": [split for split in SPLITS if any(split in run["splits"] for run in runs)],
        "settings": list(study.cells),
        "looks": {name: [look.colour, _symbol(look)] for name, look in looks.items()},
        "runs": runs,
    }


def _symbol(look: Series) -> str:
    return SHAPES[look.marker] + ("" if look.filled else "-open")


@lru_cache(maxsize=1)
def library() -> str:
    """Plotly's script, compressed: 1.9 MB instead of 4.8."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    return packed(get_plotlyjs())


def packed(text: str) -> str:
    """A text as gzip in base64, reproducible byte by byte; a browser unpacks it on demand."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _run(run: Run, names: list[str]) -> dict[str, Any]:
    wanted = run.history[run.history["metric"].isin(names) & run.history["split"].isin(SPLITS)]
    splits = {}
    for split, rows in wanted.groupby("split"):
        table = rows.groupby(["epoch", "metric"])["value"].last().unstack()
        if len(table) > 1 or split == "train":
            metrics = {str(metric): [_short(value) for value in table[metric]] for metric in table}
            splits[str(split)] = {"epochs": table.index.tolist(), "metrics": metrics}
    return {
        "name": run.name,
        "setting": run.setting,
        "refinement": run.refinement,
        "seed": run.axes.get("seed"),
        "terminal": run.terminal_epoch,
        "splits": splits,
    }


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
