"""``results.json``: the records of a study's finished runs, and the reasons of those that failed."""

import json
from pathlib import Path
from typing import Any

from deq_collapse.files import write_json
from deq_collapse.study.grid import StudyFile
from deq_collapse.study.state import RESULT, lock, read_state, state_of

RESULTS = "results.json"
SINGLE = "deq-collapse fit, once per run"
"""The command of a directory that no study made."""


def write_results(study: StudyFile, command: str) -> None:
    """Gathers what is there; of several processes that do, the last one sees all."""
    with lock(study.directory, patience=60):
        write_json(study.directory / RESULTS, results(study, command))


def results(study: StudyFile, command: str) -> dict[str, Any]:
    """The records of the runs that are finished, in the order of the grid, the reasons of those that failed,
    and the axes of all cells, so that a table knows what is missing.
    """
    directories = {cell.name: study.directory / cell.name for cell in study.cells}
    failed = [name for name, directory in directories.items() if state_of(directory) == "failed"]
    return {
        "study": study.name,
        "command": command,
        "runs": [_read(path / RESULT) for path in directories.values() if (path / RESULT).exists()],
        "failed": [{"name": name, "reason": read_state(directories[name]).get("reason")} for name in failed],
        "cells": [{"name": cell.name, "axes": cell.axes} for cell in study.cells],
    }


def gather(directory: Path) -> None:
    """Writes ``results.json`` for a directory of finished runs that no study made, anew where it had been."""
    records = sorted(directory.glob(f"*/{RESULT}"))
    path = directory / RESULTS
    if records and (not path.exists() or _read(path).get("command") == SINGLE):
        runs = [_read(path) for path in records]
        content = {
            "study": directory.name,
            "command": SINGLE,
            "runs": runs,
            "failed": [],
        }
        write_json(directory / RESULTS, content)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
