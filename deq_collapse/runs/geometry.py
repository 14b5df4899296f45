"""``geometry.npz``: class means, classifier and some test features after the last epoch."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically
from deq_collapse.runs.files import GEOMETRY
from deq_collapse.runs.reading import reason


@dataclass(frozen=True)
class Geometry:
    """Class means and classifier (K, d), and test features (n, d) with labels (n,), after the last epoch;
    n is 0 in a study that was packed.
    """

    class_means_train: NDArray[np.float64]
    class_means_test: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    test_features: NDArray[np.float64]
    test_labels: NDArray[np.int64]
    class_names: NDArray[np.str_]
    majority: NDArray[np.int64]


def write_geometry(arrays: Mapping[str, Any], directory: Path) -> None:
    """Writes the arrays of `Geometry`, by their names, into a run's directory."""
    write_atomically(directory / GEOMETRY, _archived(arrays))


def _archived(arrays: Mapping[str, Any]) -> bytes:
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def without_features(directory: Path) -> bytes:
    """The content of a run's file of geometry with no test features and labels left, which are most of it.

    Raises:
        UserError: see `read_geometry`.
    """
    arrays = _arrays(directory)
    return _archived(arrays | {name: arrays[name][:0] for name in ("test_features", "test_labels")})


def read_geometry(directory: Path) -> Geometry:
    """Reads what `write_geometry` wrote.

    Raises:
        UserError: if it is missing or damaged, or its shapes do not fit together.
    """
    arrays = _arrays(directory)
    return Geometry(**{field.name: arrays[field.name] for field in fields(Geometry)})


def _arrays(directory: Path) -> dict[str, NDArray[Any]]:
    """All arrays of the file, those of `Geometry` and others."""
    path = directory / GEOMETRY
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = dict.fromkeys([*archive.files, *(field.name for field in fields(Geometry))])
            arrays = {name: archive[name] for name in names}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; the run's folder is incomplete, run it again.") from error
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a complete file of class geometry ({reason(error)}).") from error
    shapes = {arrays[name].shape for name in ("class_means_train", "class_means_test", "weight")}
    if len(shapes) != 1 or arrays["test_features"].shape[:1] != arrays["test_labels"].shape:
        raise UserError(f"{path} holds arrays whose shapes do not belong together.")
    return arrays
