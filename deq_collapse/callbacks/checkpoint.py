"""The checkpoint from which a run continues."""

import hashlib
import json
import os
import shutil
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import distributed

from deq_collapse.errors import UserError
from deq_collapse.files import write_json
from deq_collapse.runs.files import CHECKPOINT, CHECKSUMS, PREVIOUS

RandomState = tuple[torch.Tensor, torch.Tensor | None]
"""Of torch's generator on the CPU, and of that on the rank's own GPU if it has one."""


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint; ``None`` if it is intact.

    A run's own checkpoints are compared with the checksums beside them. For others, torch's archive has a
    CRC-32 of every tensor, which does not detect all damage to its index.
    """
    if not path.is_file():
        return "it is no file"
    sums = _sums(path.parent) if path.name in (CHECKPOINT, PREVIOUS) else []
    if sums:
        return None if _sha256(path) in sums else "its checksum is not the one it was saved with"
    try:
        if not zipfile.is_zipfile(path):
            return "cut short, or another kind of file"
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        torch._C.PyTorchFileReader(str(path))  # checks parts of the index that zipfile ignores
    except Exception as error:  # a damaged index may make either raise anything
        return f"its index is damaged ({str(error).partition('. ')[0] or type(error).__name__})"
    return f"the checksum of {broken} in it is another" if broken else None


def lacks(path: Path) -> str | None:
    """A key that a file lacks to be a Lightning checkpoint; ``None`` if it has all. No weights are read."""
    try:
        content = torch.load(path, map_location="meta", mmap=True, weights_only=True)
    except Exception:  # e.g. of a class that is not allowed: loading will report it
        return None
    needed = ("state_dict", "pytorch-lightning_version")
    return next((key for key in needed if not isinstance(content, dict) or key not in content), None)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint atomically: a kill while saving, or a power failure, leaves the previous one.

    The previous checkpoint is kept, in case the last is damaged later. If a run resumed from it, it stays
    until there is a newer one.
    """

    def __init__(self) -> None:
        self._went_on_from_previous = False

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        """Notes which of the two was loaded."""
        self._went_on_from_previous = Path(path).name == PREVIOUS
        return super().load_checkpoint(path, *args, **options)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a draft beside the file, waits for the disk, then renames it.

        Raises:
            UserError: if it cannot be written, e.g. on a full disk; the previous checkpoint still exists.
        """
        path, draft, buffer = Path(path), Path(f"{path}.part"), BytesIO()
        # Lightning would use a file in the folder for temporary files, which a kill would leave there.
        torch.save(checkpoint, buffer)
        content = buffer.getbuffer()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if path.name == CHECKPOINT:
                _keep(path, hashlib.sha256(content).hexdigest(), not self._went_on_from_previous)
                self._went_on_from_previous = False
            draft.replace(path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise UserError(
                f"{path} cannot be written: {error.strerror}; once that is put right, the same command with"
                " --ckpt_path last goes on from the checkpoint before."
            ) from error


def _keep(last: Path, coming: str, as_previous: bool) -> None:
    """Gives the last checkpoint its second name before a new one takes the first, so that a last one always
    exists. The checksum of the new one is stored before it exists.
    """
    sums = _sums(last.parent) or ([_sha256(last)] if last.exists() else [])
    write_json(last.with_name(CHECKSUMS), [coming, *sums][:3])
    if not (as_previous and last.exists()):
        return
    draft = last.with_name(f"{PREVIOUS}.part")
    draft.unlink(missing_ok=True)
    try:
        draft.hardlink_to(last)
    except OSError:  # the file system has no links
        shutil.copyfile(last, draft)
    draft.replace(last.with_name(PREVIOUS))


def _sums(directory: Path) -> list[str]:
    """Checksums of the last checkpoints, the newest first; none if they were saved without."""
    try:
        found = json.loads((directory / CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``last.ckpt`` in the run's directory, rewritten after every epoch, and the one before it.

    Both hold the state of torch's random number generators of every rank, so that a Jacobian term or dropout
    continues as in an uninterrupted run.
    """

    def __init__(self) -> None:
        self._random: list[RandomState] = []
        self._device = torch.device("cpu")
        # Not save_last, which writes only beside other checkpoints; without any, only once, when training
        # ends.
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sets the directory and the rank's device, which only the trainer knows."""
        self.dirpath, self._device = trainer.default_root_dir, trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the random state of the checkpoint, whatever was drawn to build the run."""
        super().on_train_start(trainer, pl_module)
        if self._random:
            on_cpu, on_gpu = self._random[trainer.global_rank % len(self._random)]
            torch.set_rng_state(on_cpu)
            if on_gpu is not None and self._device.type == "cuda":
                torch.cuda.set_rng_state(on_gpu, self._device)
            self._random = []

    def state_dict(self) -> dict[str, Any]:
        """Adds the random states. Every rank has to call it, as every rank saves a checkpoint."""
        return super().state_dict() | {"random_of_ranks": _random_of_ranks(self._device)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Reads the random states, which older checkpoints lack."""
        super().load_state_dict(state_dict)
        self._random = state_dict.get("random_of_ranks", [])


def _random_of_ranks(device: torch.device) -> list[RandomState]:
    """The random states of all ranks, for the first one, which saves them, does not see what others draw."""
    own = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    states: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, own)
    return states
