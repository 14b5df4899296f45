"""Runs the cells of a study one after the other: finished ones are kept, an interrupted one goes on."""

import json
import traceback
from pathlib import Path
from typing import Any

from deq_collapse.callbacks.record import RESULT
from deq_collapse.errors import UserError
from deq_collapse.files import write_json
from deq_collapse.lightning_cli import FinishedRun, lightning_main
from deq_collapse.study.grid import Cell, StudyFile

RESULTS = "results.json"


def run_study(study: StudyFile, command: str) -> None:
    """Runs what is missing, and keeps ``results.json`` up to date after every run.

    A run that fails is recorded with its reason, and the next one starts.

    Raises:
        UserError: where a cell's configuration is wrong; then nothing more is started.
    """
    failures: dict[str, str] = {}
    for number, cell in enumerate(study.cells, 1):
        place = f"[{number}/{len(study.cells)}]"
        try:
            lightning_main(arguments(study, cell, f"{place} {cell.name}"))
        except FinishedRun:
            print(f"{place} {cell.name}  finished before", flush=True)
        except UserError:
            raise
        except Exception as error:
            traceback.print_exc()
            failures[cell.name] = f"{type(error).__name__}: {error}"
        write_json(study.directory / RESULTS, results(study, command, failures))


def arguments(study: StudyFile, cell: Cell, title: str) -> list[str]:
    """The command line of a cell's run."""
    args = ["fit"]
    for config in cell.configs:
        args += ["--config", config]
    args += [
        "--name",
        cell.name,
        "--study",
        study.name,
        "--axes",
        json.dumps(cell.axes),
        "--progress_title",
        title,
    ]
    return [*args, "--trainer.default_root_dir", str(study.directory / cell.name), "--ckpt_path", "last"]


def results(study: StudyFile, command: str, failures: dict[str, str]) -> dict[str, Any]:
    """The records of the runs that are finished, in the order of the grid, and the reasons of those that
    failed.
    """
    paths = [study.directory / cell.name / RESULT for cell in study.cells]
    return {
        "study": study.name,
        "command": command,
        "runs": [_read(path) for path in paths if path.exists()],
        "failed": [{"name": name, "reason": reason} for name, reason in failures.items()],
    }


def gather(directory: Path) -> None:
    """Writes ``results.json`` for a directory of finished runs that no study made."""
    records = sorted(directory.glob(f"*/{RESULT}"))
    if records and not (directory / RESULTS).exists():
        runs = [_read(path) for path in records]
        content = {
            "study": directory.name,
            "command": "deq-collapse fit, once per run",
            "runs": runs,
            "failed": [],
        }
        write_json(directory / RESULTS, content)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
