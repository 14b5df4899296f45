"""Published curves behind a study's own: ``published.csv`` in its folder, digitised from a figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically
from deq_collapse.runs.files import PUBLISHED
from deq_collapse.runs.reading import read_table

COLUMNS = ("K_A", "R", "model", "epoch", "quantity", "value")

QUANTITIES: dict[str, tuple[str, Callable[[pd.Series[float]], pd.Series[float]]]] = {
    "accuracy": ("accuracy", lambda value: value / 100),
    "log_nc1": ("nc1", np.exp),
    "nc2": ("nc2_etf_means", lambda value: value),
    "nc3": ("nc3", np.square),
}
"""Published quantities, our metric for each, and the conversion to our units. Sun & Shi (2024) do not state
the base of their logarithm; only e gives an NC1 that a network can have before training. Nor do they state
the power of their NC3: ours is squared.
"""


def read_published(directory: Path) -> pd.DataFrame | None:
    """The curves in a study's folder; None if there are none.

    Returns:
        ``K_A``, ``R``, ``model``, ``epoch`` (completed epochs), ``metric`` and ``value``, a row per point.

    Raises:
        UserError: for a file that is not such a table, and a quantity that is not in `QUANTITIES`.
    """
    path = directory / PUBLISHED
    return published(path) if path.exists() else None


def keep(path: Path, directory: Path) -> None:
    """Copies a table of published curves into a study's folder, where its reports will find it.

    Raises:
        UserError: for a file that is not such a table, and a folder that is not a study's.
    """
    published(path)
    if not directory.is_dir():
        raise UserError(f"{directory} does not exist; give the folder of a study that was run.")
    write_atomically(directory / PUBLISHED, path.read_text(encoding="utf-8"))


def published(path: Path) -> pd.DataFrame:
    """The table in a file, as returned by `read_published`.

    Raises:
        UserError: the same, and for a file that does not exist.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a table with the columns {', '.join(COLUMNS)}.")
    table = read_table(path, COLUMNS)
    unknown = sorted(set(table["quantity"]) - set(QUANTITIES))
    if unknown:
        raise UserError(
            f"{path} has the quantity {unknown[0]}, but a quantity is one of {', '.join(QUANTITIES)}."
        )
    parts = []
    for quantity, (metric, ours) in QUANTITIES.items():
        rows = table[table["quantity"] == quantity]
        parts.append(rows.assign(metric=metric, value=ours(rows["value"])))
    # A published curve starts at epoch 0, measured after that epoch.
    return pd.concat(parts).drop(columns="quantity").assign(epoch=lambda curves: curves["epoch"] + 1)
