"""The record of exactly which training images a run uses, and training on those of another run's record."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deq_collapse.data.imbalance import Imbalance
from deq_collapse.data.source import Source
from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically

KEYS = ("source", "sha256", "imbalance", "seed", "counts", "majority", "indices")


def manifest(
    source: Source, imbalance: Imbalance, seed: int, indices: Tensor, validation: Tensor
) -> dict[str, Any]:
    """Describe a selection in values that JSON preserves.

    `sha256` is the checksum of the source's whole training split, see `Source.sha256`; `indices` and, if
    images are held out, `validation` are positions in it.
    """
    rule = type(imbalance)
    majority = imbalance.majority(source.num_classes)
    return {
        "source": source.name,
        "sha256": source.sha256,
        "imbalance": {"class_path": f"{rule.__module__}.{rule.__qualname__}", "init_args": vars(imbalance)},
        "seed": seed,
        "counts": source.train.labels[indices].bincount(minlength=source.num_classes).tolist(),
        "majority": None if majority is None else list(majority),
        "indices": indices.tolist(),
        **({"validation": validation.tolist()} if len(validation) else {}),
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the manifest completely or not at all.

    Raises:
        UserError: if the folder is not writable.
    """
    write_atomically(path, json.dumps(content, default=str) + "\n")


def verify(path: Path, content: dict[str, Any]) -> None:
    """Check that the manifest at `path` equals `content`.

    Raises:
        UserError: naming what differs, or if the file is not a manifest.
    """
    found = read(path)
    expected = json.loads(json.dumps(content, default=str))
    names = [name for name in dict.fromkeys([*expected, *found]) if found.get(name) != expected.get(name)]
    if names:
        raise UserError(
            f"the data differ from those this run began with, in: {', '.join(names)} (see {path});"
            " restore them, or choose another output directory"
        )


def read(path: Path) -> dict[str, Any]:
    """The content of a manifest.

    Raises:
        UserError: if the file is not a manifest.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the manifest {path}: {reason}") from error
    if not isinstance(content, dict):
        raise UserError(f"cannot read the manifest {path}: it holds no keys")
    return content


@dataclass(frozen=True)
class Replay(Imbalance):
    """Exactly the training images of an earlier run, from its manifest.

    Args:
        manifest: path of its `manifest.json`.

    Raises:
        UserError: when the images are requested, if the file is not a manifest or belongs to other data.
    """

    manifest: str

    def counts(self, available: Sequence[int]) -> tuple[int, ...]:
        """Those of the earlier run."""
        return tuple(self._content()["counts"])

    def majority(self, num_classes: int) -> tuple[int, ...] | None:
        """Those of the earlier run."""
        majority = self._content()["majority"]
        return None if majority is None else tuple(majority)

    def indices(self, source: Source, seed: int) -> Tensor:
        """Those of the earlier run; the seed has no effect.

        Raises:
            UserError: if the source is not the one of the manifest.
        """
        content, labels = self._content(), source.train.labels
        if content["sha256"] != source.sha256:
            raise UserError(
                f"the manifest {self.manifest} is of other data: its {content['source']} has the checksum"
                f" {content['sha256'][:12]}..., this {source.name} {source.sha256[:12]}..."
            )
        indices = torch.tensor(content["indices"], dtype=torch.int64)
        ascending = torch.cat([torch.tensor([-1]), indices, torch.tensor([len(labels)])]).diff() > 0
        if (
            not ascending.all()
            or labels[indices].bincount(minlength=source.num_classes).tolist() != (content["counts"])
        ):
            raise UserError(f"the manifest {self.manifest} was altered: its indices and counts do not agree")
        return indices

    def _content(self) -> dict[str, Any]:
        content = read(Path(self.manifest))
        missing = [name for name in KEYS if name not in content]
        if missing:
            raise UserError(f"{self.manifest} is no manifest of a run: it has no {missing[0]}")
        for name in ("counts", "indices", "majority"):
            optional = name == "majority" and content[name] is None
            if not optional and not _are_whole_numbers(content[name]):
                raise UserError(f"{self.manifest} was altered: {name} is no list of whole numbers")
        return content


def _are_whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)
