"""Reading a file of a run: errors name the file and what is wrong with it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from deq_collapse.errors import UserError

TYPES = {"epoch": int, "step": int, "evaluations": int, "K_A": int, "R": float, "value": float}
"""Types of the columns that hold numbers."""


def read_json(path: Path) -> dict[str, Any]:
    """Reads one JSON object.

    Raises:
        UserError: if it is missing or something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; give the folder of a study that was run.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({reason(error)}).") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} should hold one JSON object, not a {type(value).__name__}.")
    return value


def read_record(path: Path) -> dict[str, Any]:
    """Reads the ``result.json`` of a run.

    Raises:
        UserError: if it is damaged, or something else.
    """
    cure = "remove it, and the run's command finishes the run again"
    try:
        record = read_json(path)
    except UserError as error:
        raise UserError(f"{str(error).removesuffix('.')}: {cure}.") from error
    lacking = [name for name in ("name", "axes", "class_counts", "majority", "solver") if name not in record]
    if lacking:
        raise UserError(f"{path} is not the record of a run, for it lacks {', '.join(lacking)}: {cure}.")
    return record


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Reads a table with these columns, and any others.

    Raises:
        UserError: if it is missing or damaged, or lacks a column.
    """
    try:
        table = pd.read_csv(path, dtype={name: TYPES.get(name, str) for name in columns})
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; the run's folder is incomplete, run it again.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a table of logged values ({reason(error)}).") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; it should have all of {columns}.")
    return table


def number(value: float | None) -> float:
    """A number from JSON, in which null stands for a value that was not finite."""
    return math.nan if value is None else float(value)


def reason(error: Exception) -> str:
    """What went wrong, on one line."""
    text = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return text.splitlines()[0].rstrip(".")
