"""The environment of a run: versions, commit, device."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from deq_collapse.files import write_json
from deq_collapse.runs.files import ENVIRONMENT

PACKAGES = (
    "deq-collapse",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "torchdeq",
    "numpy",
    "scikit-learn",
)


class Environment(Callback):
    """Writes ``environment.json`` into the run's directory when it starts."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file."""
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            device = trainer.strategy.root_device
            write_json(Path(trainer.default_root_dir) / ENVIRONMENT, environment(device, trainer.world_size))


def environment(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """What someone else needs to know to reproduce the numbers."""
    cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "commit": commit(),
        "commit of own code": own_commit(),
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


def commit() -> str:
    """The commit of this package, from git or recorded by an image; with ``-dirty`` if files differ."""
    recorded = os.environ.get("DEQ_COLLAPSE_COMMIT")
    if recorded:
        return re.sub("^([0-9a-f]{12})[0-9a-f]+", r"\1", recorded)  # as short as requested from git
    return _described(Path(__file__).parent) or "unknown"


def own_commit() -> str:
    """The commit of the working directory, which holds the user's own parts; ``none`` outside git, and if it
    is the package's repository.
    """
    here, there = (
        _git(directory, "rev-parse", "--show-toplevel") for directory in (Path(), Path(__file__).parent)
    )
    return (_described(Path()) if here and here != there else None) or "none"


def _described(directory: Path) -> str | None:
    """The commit of a directory, with ``-dirty`` if files differ from it."""
    return _git(directory, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def _git(directory: Path, *args: str) -> str | None:
    try:
        command = ["git", "-C", str(directory), *args]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
