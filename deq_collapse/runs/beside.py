"""A trained network compared with theory: the files that ``theory compare`` writes into a run."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically
from deq_collapse.runs.files import THEORY, THEORY_GRAMS

TARGETS = ("ETF", "SELI", "layer-peeled", "GOF")
GRAMS = {"weights": "classifier rows", "means": "class means", "logits": "logits"}
VALUES = ("weight_energy", "feature_energy", "loss_of_means", "optimal_loss")


@dataclass(frozen=True)
class Beside:
    """One run compared with theory.

    Attributes:
        name: of the run.
        refinement: `explicit`, `equilibrium`, or the study's own label.
        majority: indices of majority classes; empty without a step imbalance.
        table: a row per target: the normalised distances `weights`, `means`, `logits` in [0, 2], and the
            values of the run, the same in every row.
        grams: `this run`, every target and `not centred` (the run's, as GOF is compared with) to the Gram
            matrices of classifier rows and class means and the logits, (3, K, K), each of unit norm.
    """

    name: str
    refinement: str
    majority: tuple[int, ...]
    table: pd.DataFrame
    grams: Mapping[str, NDArray[np.float64]]

    @property
    def words(self) -> str:
        """Energies, losses and minority cosines, measured and at the layer-peeled optimum."""
        row = self.table.iloc[0]
        text = (
            f"E_W {row['weight_energy']:.3g}, E_H {row['feature_energy']:.3g}; loss of the class means"
            f" {row['loss_of_means']:.3g}, the least for these energies {row['optimal_loss']:.3g}"
        )
        if self.majority:
            text += "; minority cosine " + ", ".join(
                f"of {part} {row[f'minority_cos_{part}']:.3f} (optimum"
                f" {row[f'minority_cos_{part}_optimal']:.3f})"
                for part in ("weights", "means")
            )
        return text + "."


def write_beside(directory: Path, beside: Beside) -> None:
    """Writes ``theory.csv`` and ``theory.npz``.

    Raises:
        UserError: if they cannot be written.
    """
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **beside.grams)
    write_atomically(directory / THEORY, beside.table.to_csv(index=False))
    write_atomically(directory / THEORY_GRAMS, buffer.getvalue())


def read_beside(directory: Path, name: str, refinement: str, majority: Sequence[int] | None) -> Beside | None:
    """Reads what `write_beside` wrote into a run; None if there is nothing.

    Raises:
        UserError: if a file is damaged, or one of the two is missing.
    """
    paths = directory / THEORY, directory / THEORY_GRAMS
    if not paths[1].exists():
        return None
    again = f"lay the run beside the theory again: deq-collapse theory compare {directory}"
    try:
        table = pd.read_csv(paths[0])
        with np.load(paths[1], allow_pickle=False) as arrays:
            grams = {key: arrays[key] for key in ("this run", *TARGETS, "not centred")}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{paths[0]} and {paths[1].name} are not complete; {again}.") from error
    if list(table.get("target", ())) != list(TARGETS) or not {*GRAMS, *VALUES} <= set(table.columns):
        raise UserError(f"{paths[0]} lacks values or targets; {again}.")
    return Beside(name, refinement, tuple(majority or ()), table, grams)
