"""The checkpoint a run continues from."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint as a whole: a run killed while it saves, or without power, has the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes beside the file, waits for the disk, then renames."""
        draft = Path(f"{path}.part")
        super().save_checkpoint(checkpoint, draft, storage_options)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``last.ckpt`` in the run's directory, rewritten after every epoch."""

    def __init__(self) -> None:
        # Not save_last, which writes beside other checkpoints only: with none, once, when training ends.
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The directory is known once there is a trainer."""
        self.dirpath = trainer.default_root_dir
        super().setup(trainer, pl_module, stage)
