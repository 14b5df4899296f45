"""The parts of a run that a wandb server lacks: recorded beside the run, with the command that sends them."""

import shlex
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from deq_collapse.files import write_atomically

UNSENT = "wandb-unsent.txt"
"""File in a run's directory that lists the wandb directories that the server lacks."""

START, HEADER, BLOCK = 7, 7, 32768
"""Bytes in a ``.wandb`` file: before its first block, before each part of a record, in a block."""
WHOLE, LAST = 1, 4
"""Kinds of parts that end a record."""


def note(directory: Path, wandb: Path) -> None:
    """Adds a wandb directory to those that the server lacks.

    Args:
        directory: of the run.
        wandb: directory of one start of it, e.g. ``<directory>/wandb/run-20261128_120000-3f2a9c1e``.
    """
    listed = dict.fromkeys([*_listed(directory), str(wandb)])
    write_atomically(directory / UNSENT, "".join(f"{line}\n" for line in listed))


def unsent(directories: Iterable[Path]) -> list[Path]:
    """The recorded directories of some runs that still exist and that ``wandb sync`` has not sent since."""
    noted = [Path(line) for directory in directories for line in _listed(directory)]
    return [wandb for wandb in noted if wandb.is_dir() and not any(wandb.glob("*.synced"))]


def command(wandb: Iterable[Path]) -> str:
    """The command that sends them; without the flag wandb skips runs that were once online."""
    return shlex.join(["wandb", "sync", "--include-online", *map(str, wandb)])


def is_whole(wandb: Path) -> bool:
    """Whether the local file of a start has its exit record, and hence everything that was logged."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    files = list(wandb.glob("*.wandb"))
    records = _records(files[0].read_bytes()) if files else iter(())
    return any(Record.FromString(record).WhichOneof("record_type") == "exit" for record in records)


def _listed(directory: Path) -> list[str]:
    file = directory / UNSENT
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _records(content: bytes) -> Iterator[bytes]:
    """The complete records of a ``.wandb`` file, which has the log format of LevelDB after a header."""
    at, parts = START, b""
    while at + HEADER <= len(content):
        room = BLOCK - at % BLOCK
        if room < HEADER:  # the last bytes of a block hold no record
            at += room
            continue
        length, kind = struct.unpack("<4xHB", content[at : at + HEADER])
        at += HEADER + length
        if at > len(content):
            return
        parts += content[at - length : at]
        if kind in (WHOLE, LAST):
            yield parts
            parts = b""
