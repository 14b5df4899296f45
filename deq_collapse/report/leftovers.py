"""Removes files that an earlier report wrote into a folder and this one did not."""

from collections.abc import Collection
from pathlib import Path

from deq_collapse.files import write_atomically


def keep_only(folder: Path, written: Collection[str]) -> None:
    """Removes files of the previous report, and lists those of this one in a hidden file beside the folder,
    so that other files stay.

    Args:
        folder: such as ``<study>/tables``.
        written: names of the files of this report.

    Raises:
        UserError: if the folder cannot be written.
    """
    noted = folder.with_name(f".{folder.name}")
    before = noted.read_text(encoding="utf-8").splitlines() if noted.exists() else []
    for name in {*before} - {*written}:
        (folder / name).unlink(missing_ok=True)
    write_atomically(noted, "".join(f"{name}\n" for name in sorted(written)), through=False)
