"""The unfinished runs of a study, as a section of its page: their progress and their curves."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from deq_collapse.errors import UserError
from deq_collapse.figures.curves import collapse_curves, shared_scales
from deq_collapse.figures.style import svg
from deq_collapse.report.markup import setting_markup
from deq_collapse.report.wording import number, percent
from deq_collapse.runs.config import read_saved
from deq_collapse.runs.files import SPLITS
from deq_collapse.runs.geometry import Geometry
from deq_collapse.runs.history import read_history
from deq_collapse.runs.record import Run
from deq_collapse.runs.study import by_setting
from deq_collapse.study.located import Located
from deq_collapse.study.progress import epochs_asked
from deq_collapse.study.state import read_state, state_of

STATES = ("finished", "running", "interrupted", "failed", "waiting")
MOST_FIGURES = 6


@dataclass(frozen=True)
class Row:
    """A run that has started and is not finished; with the reason if it failed."""

    name: str
    state: str
    texts: list[str]
    reason: str | None


def section(study: Located, now: float, reported: Collection[str] | None = None) -> Markup:
    """Counts of runs by state, a row for each run that has started and is not finished, and their curves.

    Args:
        study: the study to show.
        now: seconds since 1970, shown on the page.
        reported: runs covered by the report on the same page; ``None`` for all finished ones.
    """
    states = {name: state_of(study.directory / name) for name in study.runs}
    begun = {name: state for name, state in states.items() if state not in ("finished", "waiting")}
    found = {name: run_so_far(study.directory / name, study.runs[name]) for name in begun}
    drawn = [run for name, run in found.items() if run and run.train and begun[name] != "failed"]
    figures = _figures(drawn)
    environment = Environment(
        loader=PackageLoader("deq_collapse", "report/templates"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["setting"] = setting_markup
    text = environment.get_template("unfinished.html.j2").render(
        told=_told(states, study.whole, reported),
        clock=time.strftime("%H:%M:%S", time.localtime(now)),
        rows=[_row(study.directory / name, state, found[name]) for name, state in begun.items()],
        held_out=drawn[0].held_out if drawn else "held out",
        figures=figures,
        left_out=len({run.setting for run in drawn}) - len(figures),
    )
    return Markup(text)


def run_so_far(directory: Path, axes: dict[str, str]) -> Run | None:
    """An unfinished run, as far as its history goes; ``None`` before the end of its first epoch."""
    try:
        history = read_history(directory)
    except UserError:
        return None
    train_error = history[(history["split"] == "train") & (history["metric"] == "error")]
    phase = train_error.loc[train_error["value"] == 0, "epoch"]
    last: dict[str, dict[str, float]] = {split: {} for split in SPLITS}
    for split, metric, value in zip(history["split"], history["metric"], history["value"], strict=True):
        last.setdefault(split, {})[metric] = value
    nothing: dict[str, Any] = {field.name: np.empty(0) for field in fields(Geometry)}
    return Run(
        name=directory.name,
        axes=axes,
        dataset=directory.parent.name,  # names the setting of runs without axes
        class_counts=(),
        majority=None,
        epochs=epochs_asked(directory) or int(history["epoch"].max()),
        steps=int(history["step"].max()),
        parameters={},
        flops_per_image=None,
        activation_bytes=None,
        seconds_per_step=None,
        terminal_epoch=int(phase.min()) if len(phase) else None,
        nc1_fall=math.nan,
        train=last["train"],
        validation=last["validation"],
        test=last["test"],
        solver=None,
        history=history,
        geometry=Geometry(**nothing),
        environment={},
        along=None,
        theory=None,
        saved=read_saved(directory),
    )


def _told(states: dict[str, str], whole: bool, reported: Collection[str] | None) -> str:
    finished = {name for name, state in states.items() if state == "finished"}
    since = len(finished - set(finished if reported is None else reported))
    counts = Counter(states.values())
    told = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    late = f" ({since} of the finished since the report below was drawn)" if since else ""
    return f"{len(states)} runs{'' if whole else ' begun'}: {told}{late}"


def _row(directory: Path, state: str, run: Run | None) -> Row:
    if state == "failed":
        return Row(directory.name, state, [], read_state(directory).get("reason") or "no reason recorded")
    if run is None:
        return Row(directory.name, state, ["0", "", "", ""], None)
    texts = [
        f"{int(run.history['epoch'].max())} of {run.epochs}",
        percent(run.train.get("error", math.nan)),
        number(run.train.get("nc1", math.nan)),
        percent(getattr(run, run.held_out).get("accuracy", math.nan)),
    ]
    return Row(directory.name, state, texts, None)


def _figures(runs: list[Run]) -> dict[str, Markup]:
    """Curves of the runs of each setting, all refinements in the same axes."""
    scales = shared_scales(runs) if runs else {}
    return {
        setting: Markup(svg(collapse_curves(cell, scales, columns=2), f"now{place}", f"So far: {setting}"))
        for place, (setting, cell) in enumerate(list(by_setting(runs).items())[:MOST_FIGURES])
    }
