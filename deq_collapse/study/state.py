"""The lock of a run's process, and the record of the run's state."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deq_collapse.files import write_json
from deq_collapse.runs.files import CONFIG, RESULT

STATE, LOG, TRACEBACK = "state.json", "log.txt", "traceback.txt"
PATIENCE = 2.0
"""Seconds to wait for a lock, because another process may just be checking it."""


@contextmanager
def lock(directory: Path, patience: float = PATIENCE) -> Iterator[bool]:
    """Holds the lock of a run or a study if it is free; yields whether it is.

    The operating system frees the lock when the process that holds it ends, in whatever way.
    """
    directory.mkdir(parents=True, exist_ok=True)
    held = FileLock(directory / ".lock", timeout=patience)
    try:
        held.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        held.release()


def is_locked(directory: Path) -> bool:
    """Whether a process is running the run."""
    if not (directory / ".lock").exists():
        return False
    with lock(directory, patience=0) as free:
        return not free


def write_state(directory: Path, state: str, **values: Any) -> None:
    """Records the state of a run: running, finished, failed or interrupted; only the lock's holder may."""
    content = read_state(directory) | {"state": state} | values
    write_json(directory / STATE, content | {"pid": os.getpid(), "host": socket.gethostname()})


def is_missing(state: str, retry: bool = False) -> bool:
    """Whether a run in this state still has to run; a failed one only with ``retry``."""
    return state in ("waiting", "interrupted") or (retry and state == "failed")


def read_state(directory: Path) -> dict[str, Any]:
    """The record of a run, empty if there is none."""
    try:
        content = json.loads((directory / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def state_of(directory: Path) -> str:
    """finished, running, failed, interrupted or waiting."""
    if (directory / RESULT).exists():
        return "finished"
    if is_locked(directory):
        return "running"
    if read_state(directory).get("state") == "failed":
        return "failed"
    started = (directory / CONFIG).exists() or (directory / STATE).exists()
    return "interrupted" if started else "waiting"
