"""``history.csv``: all logged values of all epochs, one row per value."""

from pathlib import Path

import pandas as pd

from deq_collapse.files import write_atomically
from deq_collapse.runs.files import HISTORY
from deq_collapse.runs.reading import read_table

COLUMNS = ("epoch", "step", "split", "metric", "value")


def write_history(table: pd.DataFrame, directory: Path) -> None:
    """Writes the table into a run's directory; does not wait for the disk, as the checkpoint has it, too."""
    write_atomically(directory / HISTORY, table.to_csv(index=False), through=False)


def read_history(directory: Path) -> pd.DataFrame:
    """Reads what `write_history` wrote.

    Raises:
        UserError: if it is missing or damaged.
    """
    return read_table(directory / HISTORY, COLUMNS)
