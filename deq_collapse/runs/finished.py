"""A finished run for comparison with theory: class counts and final geometry, as tensors."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deq_collapse.errors import UserError
from deq_collapse.runs.files import GEOMETRY, RESULT
from deq_collapse.runs.setting import refinement_of


class FinishedRun(NamedTuple):
    """A finished run.

    Attributes:
        name: as in its record.
        refinement: `explicit`, `equilibrium`, or the study's own label.
        counts: of the training split, (K,).
        majority: indices of majority classes; empty without a step imbalance.
        weight: classifier rows, (K, d).
        bias: of the classifier, (K,).
        means: class means of the training split, (K, d).
    """

    name: str
    refinement: str
    counts: tuple[int, ...]
    majority: tuple[int, ...]
    weight: Tensor
    bias: Tensor
    means: Tensor


def read_run(directory: Path) -> FinishedRun:
    """Reads `result.json` and `geometry.npz`.

    Raises:
        UserError: if there is no finished run, or a file is damaged.
    """
    path = directory / RESULT
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        counts, majority = tuple(record["class_counts"]), tuple(record["majority"] or ())
        name, refinement = record["name"], refinement_of(record["axes"], record["solver"])
    except FileNotFoundError as error:
        raise UserError(f"{directory} holds no finished run: there is no {path.name} in it.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not the record of a run; run it again.") from error
    path = directory / GEOMETRY
    try:
        with np.load(path, allow_pickle=False) as arrays:
            keys = ("weight", "bias", "class_means_train")
            weight, bias, means = (torch.from_numpy(arrays[key]).double() for key in keys)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is missing or not a complete file of class geometry.") from error
    return FinishedRun(name, refinement, counts, majority, weight, bias, means)


def runs_below(directory: Path) -> list[Path]:
    """The directories of all finished runs in or below a directory, sorted; itself if it is a run.

    Raises:
        UserError: if there are none.
    """
    found = sorted(path.parent for path in directory.rglob(RESULT))
    if not found:
        raise UserError(f"{directory} holds no finished run: there is no {RESULT} in or below it.")
    return found
