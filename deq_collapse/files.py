"""Writing a file whole or not at all."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from deq_collapse.errors import UserError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a run killed meanwhile, finds the old content or the new, never a
    part.

    Raises:
        UserError: where it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        draft.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            draft.unlink()


def write_json(path: Path, content: Any) -> None:
    """Writes JSON for people: indented, keys in the order given."""
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
