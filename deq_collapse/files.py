"""Writing a file completely or not at all."""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from deq_collapse.errors import UserError


def write_atomically(path: Path, content: str | bytes, through: bool = True) -> None:
    """Writes a file so that a reader, even after a kill, finds the old content or the new, never a part.

    Args:
        path: of the file; its folder is created.
        content: text is encoded as UTF-8.
        through: wait for the disk, so that this also holds if the power fails; takes about 10 ms.

    Raises:
        UserError: if it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if through:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            draft.unlink()


def check_writable(directory: Path) -> None:
    """Checks that files can be written into a directory, or into the one where it would be created.

    Raises:
        UserError: if not.
    """
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"the output directory {directory} cannot be written: {error.strerror}.") from error


def write_json(path: Path, content: Any) -> None:
    """Writes JSON for human readers: indented, with keys in the given order."""
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
