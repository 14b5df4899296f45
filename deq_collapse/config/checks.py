"""Mistakes that a run would meet late, found before anything is built or written."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from deq_collapse.errors import UserError

LONGEST_NAME = 200
"""Bytes; file systems allow 255, and files beside the directory add to it."""


def check_devices(trainer: Any, oversubscribe: bool = False) -> None:
    """Whether the machine has the devices that a trainer's configuration asks for.

    Args:
        trainer: the configuration.
        oversubscribe: whether more processes than cores are meant.

    Raises:
        UserError: where it has not.
    """
    asked = int(trainer.devices) if str(trainer.devices).isdigit() else 1
    cores, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    if trainer.accelerator == "cpu" and asked > cores and not oversubscribe:
        raise UserError(
            f"{asked} CPU processes are asked for, but this machine has {cores} cores: lower trainer.devices,"
            " or --oversubscribe true."
        )
    if trainer.accelerator in ("gpu", "cuda") and asked > gpus:
        raise UserError(
            f"{asked} GPUs are asked for, but this machine has {gpus}: --trainer.accelerator cpu."
        )


def check_writable(directory: Path) -> None:
    """Whether files can be written into a directory, or into the one where it would be made.

    Raises:
        UserError: where they cannot.
    """
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"the output directory {directory} cannot be written: {error.strerror}.") from error


def check_name(name: str) -> None:
    """Whether a run may be called so: its directory has its name.

    Raises:
        UserError: for no name, one that leaves its directory, and one that is too long for a file system.
    """
    parts = name.split("/")
    if any(part.strip() in ("", ".", "..") or len(part.encode()) > LONGEST_NAME for part in parts):
        raise UserError(
            f"--name is {name[:80]!r}, but a name is that of a directory: not empty, without '.' or '..' as a"
            f" part, and at most {LONGEST_NAME} bytes."
        )
