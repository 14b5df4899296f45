"""What a run is: the hash of its resolved configuration, without the keys that leave its numbers alone."""

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
"""Keys that may change within a run. Data are compared by the checksum of their content instead of a path."""


def content_hash(config: dict[str, Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 sum of what decides a run's numbers.

    A key without a value counts as no key, so that a new one does not make other runs of old ones.
    """
    text = json.dumps(kept(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_same(directory: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Looks whether the run that lies in a directory, of one resolved configuration, is that of another.

    Raises:
        UserError: where it is not, naming the first key that differs.
    """
    if content_hash(old) != content_hash(new):
        differing = first_difference(kept(old), kept(new))
        raise UserError(
            f"{directory} holds a run of another configuration ({differing}): give the changed study another"
            " name, or move that directory away."
        )


def kept(value: Any, key: str = "") -> Any:
    """A configuration without what does not change numbers, and without keys that have no value."""
    if not isinstance(value, dict):
        return value
    paths = {name: f"{key}.{name}" if key else str(name) for name in value}
    return {
        name: kept(entry, paths[name])
        for name, entry in value.items()
        if entry is not None and paths[name] not in WITHOUT_NUMBERS
    }
