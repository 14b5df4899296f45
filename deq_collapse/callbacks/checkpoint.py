"""The checkpoint a run continues from."""

import os
from pathlib import Path
from typing import Any

import torch
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
    """Keeps ``last.ckpt`` in the run's directory, rewritten after every epoch, with the state of torch's own
    random numbers: what draws them in training, a Jacobian term or dropout, goes on as if without a break.
    """

    def __init__(self) -> None:
        self._random: tuple[torch.Tensor, list[torch.Tensor]] | None = None
        # Not save_last, which writes beside other checkpoints only: with none, once, when training ends.
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The directory is known once there is a trainer."""
        self.dirpath = trainer.default_root_dir
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on with the random numbers of the checkpoint, whatever was drawn to build the run."""
        super().on_train_start(trainer, pl_module)
        if self._random is not None:
            on_cpu, on_gpus = self._random
            torch.set_rng_state(on_cpu)
            for gpu, state in enumerate(on_gpus[: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(state, gpu)
            self._random = None

    def state_dict(self) -> dict[str, Any]:
        """With the state of the random numbers."""
        on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return super().state_dict() | {"random": (torch.get_rng_state(), on_gpus)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Older checkpoints have no such state."""
        super().load_state_dict(state_dict)
        self._random = state_dict.get("random")
