"""The identity of a run: the hash of its resolved configuration, without keys irrelevant to its numbers."""

import hashlib
import json
from pathlib import Path
from typing import Any

from deq_collapse.config.files import first_difference
from deq_collapse.errors import UserError

WITHOUT_NUMBERS = (
    "name",
    "study",
    "axes",
    "ckpt_path",
    "along",
    "oversubscribe",
    "trainer.logger",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "data.source.init_args.root",
    "data.source.init_args.memory",
    "data.source.init_args.workers",
)
"""Keys that may change within a run. Data are compared by the checksum of their content, not by path."""


def content_hash(config: dict[str, Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 sum of everything that determines a run's numbers.

    A key without a value is ignored, so that a new key does not change the identity of old runs.
    """
    text = json.dumps(kept(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_same(directory: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Checks that the existing run of a directory and a new one have the same resolved configuration.

    Raises:
        UserError: if not, naming the first key that differs.
    """
    if content_hash(old) != content_hash(new):
        differing = first_difference(kept(old), kept(new))
        raise UserError(
            f"{directory} holds a run of another configuration ({differing}): give the changed study another"
            " name, or move that directory away."
        )


def kept(value: Any, key: str = "") -> Any:
    """A configuration without keys that do not affect numbers, and without keys that have no value."""
    if not isinstance(value, dict):
        return value
    paths = {name: f"{key}.{name}" if key else str(name) for name in value}
    return {
        name: kept(entry, paths[name])
        for name, entry in value.items()
        if entry is not None and paths[name] not in WITHOUT_NUMBERS
    }
