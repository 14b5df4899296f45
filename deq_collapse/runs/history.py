"""``history.csv``: every logged value of every epoch, a row per value."""

from pathlib import Path

import pandas as pd

from deq_collapse.files import write_atomically
from deq_collapse.runs.files import HISTORY
from deq_collapse.runs.reading import read_table

COLUMNS = ("epoch", "step", "split", "metric", "value")


def write_history(table: pd.DataFrame, directory: Path) -> None:
    """Writes the table into a run's directory; the checkpoint has it too, so the disk is not waited for."""
    write_atomically(directory / HISTORY, table.to_csv(index=False), through=False)


def read_history(directory: Path) -> pd.DataFrame:
    """What `write_history` left.

    Raises:
        UserError: where there is none, or it is broken.
    """
    return read_table(directory / HISTORY, COLUMNS)
