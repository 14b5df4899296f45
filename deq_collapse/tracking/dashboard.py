"""A study's dashboard on Weights & Biases: equilibrium beside explicit, one line per setting and refinement.

wandb-workspaces is a preview API: only this file uses it, and no training imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import wandb_workspaces.workspaces as ws
from matplotlib.colors import to_hex, to_rgb
from wandb_workspaces import expr
from wandb_workspaces.reports.v2.interface import BarPlot, LinePlot, MediaBrowser, WeavePanelSummaryTable

from deq_collapse.figures.style import series
from deq_collapse.tracking.logger import job_type
from deq_collapse.tracking.upload import FIGURES, TABLES

Panel = tuple[str, tuple[str, ...], bool]
"""Title, curves, and whether they span decades."""
SECTIONS: dict[str, tuple[Panel, ...]] = {
    "Collapse, training split": (
        ("NC1: within-class over between-class variability", ("train/nc1",), True),
        ("NC2: distance of class means to the simplex ETF", ("train/nc2_etf_means",), True),
        ("NC3: distance of classifier to class means", ("train/nc3",), True),
        ("NC4: share not classified by the nearest class mean", ("train/nc4",), False),
        ("Training error", ("train/error",), False),
        ("Training loss", ("train/loss",), True),
    ),
    "Held-out images": (
        ("Accuracy", ("test/accuracy", "validation/accuracy"), False),
        ("NC1", ("test/nc1", "validation/nc1"), True),
        ("NC2", ("test/nc2_etf_means", "validation/nc2_etf_means"), True),
        ("NC3", ("test/nc3", "validation/nc3"), True),
    ),
    "Imbalance": (
        ("Accuracy, majority classes", ("test/accuracy_majority", "validation/accuracy_majority"), False),
        ("Accuracy, minority classes", ("test/accuracy_minority", "validation/accuracy_minority"), False),
        ("Minority cosine, classifier rows", ("train/minority_cos_weights_mean",), False),
        ("Minority cosine, class means", ("train/minority_cos_means_mean",), False),
    ),
    "Solver of the equilibrium": (
        ("Forward evaluations", ("fit/forward_evaluations",), False),
        ("Forward residual", ("fit/forward_residual",), True),
        ("Share that missed the tolerance", ("fit/forward_unconverged",), False),
        ("Backward evaluations", ("fit/backward_evaluations",), False),
        ("Spectral radius", ("train/spectral_radius",), False),
        ("Lipschitz bound of the cell", ("train/lipschitz_bound",), False),
    ),
}
PALEST = 0.55
"""Share of white in the last setting's colour."""
MOST_LINES = 100


def workspace(name: str, axes: Iterable[dict[str, str]], entity: str, project: str) -> ws.Workspace:
    """The dashboard of a study.

    Args:
        name: of the study, which is the group of its runs.
        axes: of its runs.
        entity: owner of the project.
        project: project of its runs.
    """
    lines = {job_type(one): one.get("refinement", "") for one in axes}
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{name}: collapse",
        sections=[*(_section(title, panels) for title, panels in SECTIONS.items()), *_outcome()],
        settings=ws.WorkspaceSettings(
            x_axis="epoch", smoothing_type="none", max_runs=min(max(len(lines), 10), MOST_LINES)
        ),
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("Group") == name),
            groupby=[expr.Metric("JobType")],
            group_colors=_colours(lines),
            pinned_columns=["summary:test/accuracy", "summary:train/nc1", "summary:epoch"],
        ),
    )


def _section(title: str, panels: Sequence[Panel]) -> ws.Section:
    return ws.Section(
        name=title,
        is_open=True,
        panels=[_curves(*panel) for panel in panels],
        layout_settings=ws.SectionLayoutSettings(columns=3, rows=-(-len(panels) // 3)),
        panel_settings=ws.SectionPanelSettings(x_axis="epoch"),
    )


def _curves(title: str, metrics: tuple[str, ...], decades: bool) -> LinePlot:
    """Means over seeds, with a band from the lowest to the highest."""
    return LinePlot(
        title=title,
        x="epoch",
        y=list(metrics),
        title_x="completed epochs",
        log_y=decades,
        groupby="JobType",
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=MOST_LINES,
    )


def _outcome() -> list[ws.Section]:
    bars = [("Test accuracy", "test/accuracy"), ("Minority accuracy", "test/accuracy_minority")]
    ends: list[Any] = [
        BarPlot(
            title=f"{title}, last epoch",
            metrics=[metric],
            groupby="JobType",
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_bars_to_show=MOST_LINES,
        )
        for title, metric in bars
    ]
    tables: list[Any] = [WeavePanelSummaryTable(table_name=TABLES)]
    figures: list[Any] = [MediaBrowser(title="Figures", media_keys=[FIGURES], num_columns=2)]
    return [
        ws.Section(name="Last epoch", panels=ends, is_open=True),
        ws.Section(name="Report: figures", panels=figures, is_open=True),
        ws.Section(name="Report: every run", panels=tables),
    ]


def _colours(lines: dict[str, str]) -> dict[object, object]:
    """A colour per refinement, paler with each setting."""
    colours: dict[object, object] = {}
    for refinement in dict.fromkeys(lines.values()):
        own = [line for line, its in lines.items() if its == refinement]
        base = to_rgb(series(refinement).colour)
        for place, line in enumerate(own):
            share = PALEST * place / max(len(own) - 1, 1)
            colours[line] = to_hex(tuple(part + (1 - part) * share for part in base))  # type: ignore[arg-type]
    return colours
