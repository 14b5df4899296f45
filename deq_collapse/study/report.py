"""The report of a study: one HTML page that opens from disk and needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from deq_collapse.files import write_atomically
from deq_collapse.study.records import Study, read_study
from deq_collapse.study.sections import figure_sections, setting_markup
from deq_collapse.study.tables import cost_table, every_metric, main_table
from deq_collapse.study.wording import (
    comparisons,
    headline,
    parameter_warnings,
    solver_warning,
    verdict,
    whole,
)

FILE_NAME = "report.html"


def write_report(study_dir: Path) -> Path:
    """Write `<study_dir>/report.html` from what the study left there, and return its path.

    The page is replaced as a whole: a reader sees the old one or the new one, and an error leaves the old.

    Raises:
        UserError: the folder is not a study's, a file in it is broken, or the page cannot be written.
    """
    path = study_dir / FILE_NAME
    write_atomically(path, render(read_study(study_dir)))
    return path


def render(study: Study) -> str:
    """The page as text; the same study gives the same text."""
    environment = Environment(
        loader=PackageLoader("deq_collapse", "study"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["whole"] = whole
    environment.filters["setting"] = setting_markup
    environment.filters["deviation"] = _deviation
    return environment.get_template("report.html.j2").render(
        study=study,
        headline=headline(study),
        provenance=_provenance(study),
        verdicts=[(run, verdict(run)) for run in study.runs],
        comparisons=comparisons(study),
        warnings=[(run, text) for run in study.runs if (text := solver_warning(run))],
        parameter_warnings=parameter_warnings(study),
        main=main_table(study),
        cost=cost_table(study),
        metrics={setting: every_metric(cell) for setting, cell in study.cells.items()},
        sections=figure_sections(study),
        seeds=max((len(runs) for cell in study.cells.values() for runs in cell.values()), default=0),
        imbalanced=any(run.majority for run in study.runs),
    )


def _deviation(text: str) -> Markup:
    """A mean with its deviation on a line of its own, which keeps the tables of several seeds narrow."""
    mean, sign, deviation = text.partition(" ± ")
    return escape(mean) + (Markup(" <small>± {}</small>").format(deviation) if sign else "")


def _provenance(study: Study) -> dict[str, str]:
    """What the runs wrote in `environment.json`; where they differ, every value."""
    found: dict[str, dict[str, None]] = {}
    for run in study.runs:
        for key, value in run.environment.items():
            found.setdefault(key.replace("_", " "), {})[_flat(value)] = None
    return {key: " | ".join(values) for key, values in found.items()}


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return str(value)
