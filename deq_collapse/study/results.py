"""``results.json``: the records of a study's finished runs, and the reasons of failed ones."""

from pathlib import Path
from typing import Any

from deq_collapse.files import write_json
from deq_collapse.runs.files import RESULT, RESULTS
from deq_collapse.runs.reading import read_json, read_record
from deq_collapse.study.plan import Plan, read_plan
from deq_collapse.study.singles import placed
from deq_collapse.study.state import lock, read_state, state_of

SINGLE = "deq-collapse fit, once per run"
"""The command of a directory that does not come from a study."""


def write_results(directory: Path, plan: Plan) -> None:
    """Gathers what exists; if several processes do so, the last one sees everything."""
    with lock(directory, patience=60):
        write_json(directory / RESULTS, results(directory, plan))


def results(directory: Path, plan: Plan) -> dict[str, Any]:
    """The records of finished runs in the order of the grid, the reasons of failed ones, and the axes of all
    cells, so that tables can show what is missing.
    """
    states = {cell.name: state_of(directory / cell.name) for cell in plan.cells}
    finished = [name for name, state in states.items() if state == "finished"]
    failed = [name for name, state in states.items() if state == "failed"]
    return {
        "study": plan.study,
        "command": plan.command,
        "runs": [read_record(directory / name / RESULT) for name in finished],
        "contrasts": list(plan.contrasts),
        "failed": [{"name": name, "reason": read_state(directory / name).get("reason")} for name in failed],
        "cells": [
            {"name": cell.name, "axes": cell.axes, "state": states[cell.name], "epochs": cell.epochs}
            for cell in plan.cells
        ],
    }


def gather(directory: Path) -> None:
    """Rewrites ``results.json`` from the current files of a study, or of finished runs without a study.

    Raises:
        UserError: where ``study.json`` is damaged.
    """
    plan = read_plan(directory)
    if plan is not None:
        write_results(directory, plan)
    elif (found := gathered(directory))["runs"] and found["command"] == SINGLE:
        write_json(directory / RESULTS, found)


def gathered(directory: Path) -> dict[str, Any]:
    """What `gather` would write; for the directory of a single run, only that run.

    Raises:
        UserError: where ``study.json`` is damaged.
    """
    plan = read_plan(directory)
    if plan is not None:
        return results(directory, plan)
    path = directory / RESULTS
    if path.exists() and (kept := read_json(path)).get("command") != SINGLE:
        return kept
    alone = directory / RESULT
    records = [alone] if alone.exists() else sorted(directory.glob(f"*/{RESULT}"))
    runs = placed([record.parent for record in records], [read_record(record) for record in records])
    return {"study": directory.absolute().name, "command": SINGLE, "runs": runs, "failed": []}
