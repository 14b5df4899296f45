"""The progress of a run, read from its history."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from deq_collapse.runs.files import CONFIG, HISTORY

TAIL = 16384
"""Number of bytes read at the end of a history: its last epochs."""


@dataclass(frozen=True)
class Progress:
    """Completed epochs, and the last measures of the training split if known."""

    epoch: int = 0
    error: float | None = None
    nc1: float | None = None

    @property
    def measures(self) -> str:
        """Train error and NC1 in words."""
        if self.error is None or self.nc1 is None:
            return ""
        return f"train error {self.error:.4f}  NC1 {self.nc1:.3g}"


def progress(directory: Path) -> Progress:
    """The progress of the run in a directory."""
    epoch, last = 0, dict[str, float]()
    for line in _tail(directory / HISTORY):
        fields = line.split(",")
        if len(fields) != 5 or not fields[0].isdigit():
            continue
        epoch = int(fields[0])
        if fields[2] == "train" and fields[3] in ("error", "nc1"):
            last[fields[3]] = float(fields[4] or "nan")
    return Progress(epoch, last.get("error"), last.get("nc1"))


def epochs_asked(directory: Path) -> int | None:
    """Number of epochs to train, if the run's configuration sets it."""
    try:
        text = (directory / CONFIG).read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^  max_epochs: (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read().decode(errors="replace").splitlines()[1:]
    except OSError:
        return []
