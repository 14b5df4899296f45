"""The record beside a run of exactly which training images it sees."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from deq_collapse.data.imbalance import Imbalance
from deq_collapse.data.source import Source
from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically


def manifest(
    source: Source, imbalance: Imbalance, seed: int, counts: tuple[int, ...], indices: Tensor
) -> dict[str, Any]:
    """Describe a selection, in values that JSON keeps as they are.

    `sha256` is the checksum of the source's whole training split: the bytes of its labels (int64,
    little-endian) followed by those of its images (uint8, (N, C, H, W)).
    """
    digest = hashlib.sha256(source.train.labels.numpy().astype(np.dtype("<i8"), copy=False).tobytes())
    digest.update(source.train.images.contiguous().numpy().data)
    rule = type(imbalance)
    return {
        "source": source.name,
        "sha256": digest.hexdigest(),
        "imbalance": {"class_path": f"{rule.__module__}.{rule.__qualname__}", "init_args": vars(imbalance)},
        "seed": seed,
        "counts": list(counts),
        "indices": indices.tolist(),
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the manifest, whole or not at all.

    Raises:
        UserError: where the folder cannot be written to.
    """
    write_atomically(path, json.dumps(content, default=str) + "\n")


def verify(path: Path, content: dict[str, Any]) -> None:
    """Check that the manifest at `path` says the same as `content`.

    Raises:
        UserError: naming what differs, or that the file is no manifest.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        expected = json.loads(json.dumps(content, default=str))
        names = [name for name in expected if found.get(name) != expected[name]]
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"cannot read the manifest {path} of the run to continue: {error}") from error
    if names:
        raise UserError(
            f"the data differ from those this run began with, in: {', '.join(names)} (see {path});"
            " restore them, or choose another output directory"
        )
