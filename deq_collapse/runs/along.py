"""``along.csv``: the measures of a trained network at H0 and after every evaluation of a block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from deq_collapse.files import write_atomically
from deq_collapse.runs.files import ALONG
from deq_collapse.runs.reading import read_table

COLUMNS = ("split", "evaluations", "module", "metric", "value")


def write_along(table: pd.DataFrame, directory: Path, name: str = ALONG) -> Path:
    """Writes the table into a run's directory; returns the file."""
    write_atomically(directory / name, table.to_csv(index=False))
    return directory / name


def read_along(directory: Path) -> pd.DataFrame | None:
    """Reads what `write_along` wrote; None if there is nothing.

    Raises:
        UserError: if it is damaged.
    """
    return read_table(directory / ALONG, COLUMNS) if (directory / ALONG).exists() else None


@dataclass(frozen=True)
class Course:
    """The content of one run's ``along.csv``, and the identity of the run."""

    name: str
    axes: Mapping[str, str]
    refinement: str
    setting: str
    table: pd.DataFrame
