"""The tables and verdicts of a study as files: csv and json for further processing, LaTeX for papers."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from deq_collapse.analysis.by_epoch import EffectCurve, effect_curves
from deq_collapse.analysis.contrasts import EffectTable, effect_tables, equal_loss_effects
from deq_collapse.analysis.costs import COSTS
from deq_collapse.analysis.equal_loss import equal_loss_tables
from deq_collapse.analysis.pairing import Comparison
from deq_collapse.analysis.settings import settings
from deq_collapse.analysis.tables import Table, comparison_tables
from deq_collapse.analysis.verdicts import records, verdicts
from deq_collapse.files import write_atomically, write_json
from deq_collapse.report.costs import cost_table
from deq_collapse.report.latex import cost_latex, differences_table, document, values_table, verdicts_table
from deq_collapse.report.leftovers import keep_only
from deq_collapse.runs.files import SPLITS
from deq_collapse.runs.record import Run
from deq_collapse.runs.study import Contrast, Study

FOLDER = "tables"


def write_tables(study: Study, study_dir: Path) -> Path:
    """Writes `runs.csv` (every final value of every run); for each table a csv with one row per setting,
    refinement and measure, and LaTeX of its values and of its differences; `effects`, at the end of training,
    at equal training loss and by epoch; `costs`; `verdicts` as csv, json and LaTeX; and `all.tex`, which
    contains all LaTeX tables.

    They can be rebuilt from the runs, so writing does not wait for the disk. Files that only the previous
    report had are removed.

    Returns:
        Their folder, `<study_dir>/tables`.

    Raises:
        UserError: if a file cannot be written.
    """
    folder = study_dir / FOLDER
    found = verdicts(study)
    tables = [*comparison_tables(study), *equal_loss_tables(study)]
    csv = {table.family.name: tidy(table) for table in tables}
    csv |= {"runs": [flat(run) for run in study.runs], "verdicts": records(found)}
    for name, effects in {
        "effects": effect_tables(study),
        "effects_equal_loss": equal_loss_effects(study),
    }.items():
        if effects:
            csv[name] = [row for table in effects for row in effect_records(table)]
    if curves := effect_curves(study):
        csv["effects_by_epoch"] = [row for curve in curves for row in epoch_records(curve)]
    tex: dict[str, str] = {}
    if found.collapse or found.pooled:
        tex["verdicts"] = verdicts_table(found)
    for table in tables:
        tex[table.family.name] = values_table(table)
        if table.others:
            tex[f"{table.family.name}_differences"] = differences_table(table)
    if study.runs:
        csv["costs"] = _costs(study)
        tex["costs"] = cost_latex(cost_table(study))
    for name, rows in csv.items():
        _write_csv(folder / f"{name}.csv", rows)
    write_json(folder / "verdicts.json", csv["verdicts"])
    for name, text in (tex | {"all": document(tex)}).items():
        write_atomically(folder / f"{name}.tex", text, through=False)
    keep_only(
        folder,
        [*(f"{name}.csv" for name in csv), *(f"{name}.tex" for name in (*tex, "all")), "verdicts.json"],
    )
    return folder


def tidy(table: Table) -> list[dict[str, Any]]:
    """A table as rows: means, standard deviations and numbers of runs of both sides, and their comparison.

    Shares are between 0 and 1; effects of measures compared as ratios are factors.
    """
    return [
        {
            "setting": line.setting.name,
            "group": line.setting.group,
            "imbalance": line.setting.label,
            "measure": entry.measure.key,
            "title": entry.measure.title,
            "baseline": table.baseline,
            **_moments("baseline", list(entry.baseline.values())),
            "other": line.refinement or None,
            **_moments("other", list(entry.other.values())),
            "effect_is": "factor" if entry.comparison.ratio else "difference",
            "effect": entry.comparison.effect,
            "low": entry.comparison.interval[0],
            "high": entry.comparison.interval[1],
            "pairs": entry.comparison.n,
            **entry.comparison.seeds,
            "p": entry.comparison.p,
            "p_holm": entry.adjusted,
            "remark": entry.comparison.remark if table.others else "",
        }
        for line in table.lines
        for entry in line.entries
    ]


def effect_records(table: EffectTable) -> list[dict[str, Any]]:
    """A table of effects as rows; effects of accuracies are between -1 and 1."""
    return [
        {
            **_changed(table.imbalance, row.contrast, row.place),
            "measure": effect.measure.key,
            **_effect(effect.comparison),
            "p": effect.comparison.p,
            "p_holm": effect.adjusted,
            "remark": effect.comparison.remark,
        }
        for row in table.rows
        for effect in row.effects
    ]


def epoch_records(curve: EffectCurve) -> list[dict[str, Any]]:
    """An effect by epochs as rows, as those of `effect_records`, but without a test."""
    return [
        {
            **_changed(curve.imbalance, curve.contrast, curve.place),
            "measure": curve.measure.key,
            "epoch": epoch,
            **_effect(comparison),
        }
        for epoch, comparison in curve.comparisons.items()
    ]


def _changed(imbalance: str, contrast: Contrast, place: str) -> dict[str, str]:
    return {
        "imbalance": imbalance,
        "contrast": contrast.name,
        "axis": contrast.axis,
        "before": contrast.before,
        "after": contrast.after,
        "in": place,
    }


def _effect(comparison: Comparison) -> dict[str, Any]:
    return {
        "effect_is": "factor" if comparison.ratio else "difference",
        "effect": comparison.effect,
        "low": comparison.interval[0],
        "high": comparison.interval[1],
        "pairs": comparison.n,
    }


def flat(run: Run) -> dict[str, Any]:
    """Every final value of a run in one row."""
    solver = asdict(run.solver) if run.solver else {}
    return {
        "name": run.name,
        "setting": run.setting,
        "refinement": run.refinement,
        **{f"axis_{axis}": label for axis, label in run.axes.items()},
        "dataset": run.dataset,
        "class_counts": " ".join(map(str, run.class_counts)),
        "epochs": run.epochs,
        "steps": run.steps,
        "terminal_epoch": run.terminal_epoch,
        "nc1_fall": run.nc1_fall,
        "collapsed": run.collapsed,
        "converged": run.converged,
        "complete": run.complete,
        **{f"end_{key}": value for key, value in (asdict(run.end) if run.end else {}).items()},
        **{f"parameters_{part}": count for part, count in run.parameters.items()},
        "flops_per_image": run.flops_per_image,
        "activation_bytes": run.activation_bytes,
        "seconds_per_step": run.seconds_per_step,
        **{f"solver_{key}": value for key, value in solver.items()},
        **{f"{split}_{key}": value for split in SPLITS for key, value in getattr(run, split).items()},
    }


def _costs(study: Study) -> list[dict[str, Any]]:
    return [
        {
            "setting": setting.name,
            "refinement": refinement,
            "runs": len(slot.runs),
            "gradient": " ".join(dict.fromkeys(run.solver.gradient for run in slot.runs if run.solver)),
            **{
                key: value
                for cost in COSTS
                for key, value in _moments(cost.key, [cost.value(run) for run in slot.runs]).items()
                if not key.endswith("_n")
            },
        }
        for setting in settings(study)
        for refinement, slot in setting.slots.items()
    ]


def _moments(name: str, values: list[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return {
        f"{name}_mean": math.fsum(known) / len(known) if known else None,
        f"{name}_std": statistics.stdev(known) if len(known) > 1 else None,
        f"{name}_n": len(known),
    }


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    write_atomically(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"), through=False)
