"""The report of a study: one self-contained HTML page that opens from disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from deq_collapse.analysis.by_epoch import effect_curves
from deq_collapse.analysis.contrasts import effect_tables, equal_loss_effects
from deq_collapse.analysis.equal_loss import equal_loss_tables
from deq_collapse.analysis.outcomes import outcome_table
from deq_collapse.analysis.settings import settings
from deq_collapse.analysis.tables import comparison_tables
from deq_collapse.analysis.verdicts import COLLAPSES, POOLING, RULE, verdicts
from deq_collapse.figures.strip import strip
from deq_collapse.files import write_atomically
from deq_collapse.report.costs import cost_table
from deq_collapse.report.entries import baseline_text, effect_text, other_text, runs_text
from deq_collapse.report.explore import curve_data, library, packed
from deq_collapse.report.figure_files import write_figures
from deq_collapse.report.markup import marked, setting_markup
from deq_collapse.report.sections import Section, figure_sections
from deq_collapse.report.table_files import write_tables
from deq_collapse.report.wording import (
    end_warning,
    headline,
    outcome,
    over_seeds,
    parameter_warnings,
    percent,
    solver_warning,
    told_effect,
    told_p,
    told_seeds,
    whole,
)
from deq_collapse.runs.record import COLLAPSED, Run
from deq_collapse.runs.setting import short
from deq_collapse.runs.study import Study, read_study

FILE_NAME = "report.html"
FIGURES = "figures"


def write_report(study_dir: Path, figures: bool = False) -> Path:
    """Write `<study_dir>/report.html` and `<study_dir>/tables` from the study's files there.

    The page is replaced atomically: a reader sees the old or the new one, and an error leaves the old one.

    Args:
        study_dir: directory of the study.
        figures: whether to write every figure as files, too, to `<study_dir>/figures`.

    Returns:
        The page's path.

    Raises:
        UserError: the folder is not a study's, a file in it is broken, or something cannot be written.
    """
    path = study_dir / FILE_NAME
    study = read_study(study_dir)
    sections = figure_sections(study)
    page = render(study, sections, write_figures(study_dir / FIGURES, sections) if figures else None)
    write_tables(study, study_dir)
    write_atomically(path, page)
    return path


def render(study: Study, sections: Sequence[Section], drawn: Mapping[str, str] | None = None) -> str:
    """The page as text; the same study gives the same text.

    Args:
        study: the study.
        sections: its figures.
        drawn: the svg of those that were drawn before, by name.
    """
    found, effects = verdicts(study), effect_tables(study)
    outcomes, curves = outcome_table(study), curve_data(study)
    parts = {
        **{f"figures-{number}": section.title for number, section in enumerate(sections, start=1)},
        "explore": "Explore" if curves["metrics"] else None,
        "verdicts": "Verdicts" if found.collapse or found.pooled else None,
        "effects": "What adds what, in numbers" if effects else None,
        "tables": "Tables",
        "cost": "Cost",
        "outcomes": "Run by run" if outcomes.blocks else None,
        "every": "Every metric",
        "rules": "The rule" if found.collapse or found.pooled else None,
        "ran": "What was run",
    }
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            study=study,
            headline=headline(study),
            contents=[(id_, title) for id_, title in parts.items() if title],
            found=found,
            claim_of_collapse=COLLAPSES,
            collapsed=COLLAPSED,
            rule=RULE,
            pooling=POOLING,
            settings=settings(study),
            effects=effects,
            equal_loss_effects=equal_loss_effects(study),
            by_epoch=bool(effect_curves(study)),
            outcomes=outcomes,
            warnings=[
                (run, text) for run in study.runs for text in (end_warning(run), solver_warning(run)) if text
            ],
            parameter_warnings=parameter_warnings(study),
            tables=[*comparison_tables(study), *equal_loss_tables(study)],
            cost=cost_table(study),
            sections=sections,
            drawn=drawn or {},
            explore=packed(json.dumps(curves, separators=(",", ":"))) if curves["metrics"] else None,
            library=library(),
            metrics={setting: every_metric(cell) for setting, cell in study.cells.items()},
            provenance=_provenance(study),
        )
    )


def _environment() -> Environment:
    """The templates, with the filters by which they word what was found."""
    environment = Environment(
        loader=PackageLoader("deq_collapse", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "whole": whole,
        "percent": percent,
        "setting": setting_markup,
        "deviation": _deviation,
        "short": short,
        "marked": marked,
        "p": told_p,
        "baseline": baseline_text,
        "other": other_text,
        "compared": effect_text,
        "runs": runs_text,
        "outcome": outcome,
        "strip": strip,
        "effect": lambda verdict: told_effect(verdict.comparison, verdict.claim.measure),
        "seeds": told_seeds,
        "told_effect": lambda effect: told_effect(effect.comparison, effect.measure),
    }
    return environment


def every_metric(cell: dict[str, list[Run]]) -> list[tuple[str, list[str]]]:
    """Each metric of one setting, with its train and test values for each refinement in turn."""
    runs = [run for seeds in cell.values() for run in seeds]
    names = dict.fromkeys(name for run in runs for values in (run.train, run.test) for name in values)
    columns = [(seeds, split) for seeds in cell.values() for split in ("train", "test")]
    return [
        (name, [over_seeds([getattr(run, split).get(name) for run in seeds]) for seeds, split in columns])
        for name in names
    ]


def _deviation(text: str) -> Markup:
    """A mean with its deviation in small print, which keeps the tables of several seeds narrow."""
    mean, sign, deviation = text.partition(" ± ")
    return escape(mean) + (Markup(" <small>± {}</small>").format(deviation) if sign else "")


def _provenance(study: Study) -> dict[str, str]:
    """What was trained, and where, as recorded by the runs; all values if they differ."""
    found: dict[str, dict[str, None]] = {}
    for run in study.runs:
        for key, value in (run.saved.recipe | run.environment).items():
            found.setdefault(key.replace("_", " "), {})[_flat(value)] = None
    return {key: " | ".join(values) for key, values in found.items()}


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return str(value)
