"""The LightningDataModule: a source, an imbalance, and their batches for every rank."""

import math
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from deq_collapse import fit_end
from deq_collapse.data.augment import Augmentation, Mixup
from deq_collapse.data.batches import (
    EpochOrder,
    EvaluationBatches,
    Normalise,
    Preparation,
    Shard,
    TrainingBatches,
    Withheld,
)
from deq_collapse.data.image_set import ImageSet
from deq_collapse.data.imbalance import Imbalance, Natural, hold_out
from deq_collapse.data.manifest import manifest, verify, write
from deq_collapse.data.sampler import Sampler, Shuffled
from deq_collapse.data.source import Source
from deq_collapse.errors import UserError
from deq_collapse.runs.files import MANIFEST

Measured = Literal["train", "validation", "test"]
"""The splits that collapse is measured on."""


class CollapseDataModule(LightningDataModule):
    """Training images under an imbalance, and clean training and test images for measuring.

    A batch is `(x, y)`: x float32 (N, C, H, W), normalised per channel, or (N, d) if the source returns
    vectors; y int64 (N,). Training batches under `mixup` have probabilities y float32 (N, K) instead. Data
    are loaded (and downloaded, once per machine) when a property or a loader first needs them, and are kept
    on the training device if it has room. If the trainer was given a directory, the images that the run
    trains on are recorded there in `manifest.json`, and a run that continues there must train on the same
    images.

    Args:
        source: the data set.
        imbalance: images per class of the training split; all by default. The test split never changes.
        batch_size: training images per batch and rank.
        eval_batch_size: largest number of images per batch and rank in evaluation. On a CPU more than a few
            hundred exceed its cache, which doubles the time; a GPU takes thousands.
        seed: determines the images kept, their order in every epoch and the augmentation; not negative.
        augment: changes training images, several in sequence; never the images used for measuring.
        mixup: mixes training samples and their labels by shares from Beta(mixup, mixup); the criterion must
            then accept probabilities as labels, as cross entropy does.
        sampler: determines which training images an epoch visits; None visits each of them once.
        validation: images per class held out of the source's training split, never trained on. The curves of
            a fit are then of these images, and the test split is measured once, at the end of the fit. None
            holds out nothing and measures the test split whenever the training split is measured.
    """

    def __init__(
        self,
        source: Source,
        imbalance: Imbalance | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 256,
        seed: int = 0,
        augment: Augmentation | list[Augmentation] | None = None,
        mixup: float | None = None,
        sampler: Sampler | None = None,
        validation: int | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1:
            raise UserError(
                f"batch sizes are {batch_size} and {eval_batch_size}, but a batch has at least 1 image"
            )
        if seed < 0:
            raise UserError(f"the seed of the data is {seed}, but a seed is not negative")
        self.source = source
        self.imbalance = imbalance or Natural()
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        if mixup is not None and not 0 < mixup < math.inf:
            raise UserError(f"mixup is {mixup:g}, but the shares are from Beta(mixup, mixup): mixup > 0")
        self.augment: Sequence[Augmentation] = (
            augment if isinstance(augment, list) else [augment] if augment else []
        )
        self.mixup = mixup
        self.sampler = sampler or Shuffled()
        if validation is not None and validation < 1:
            raise UserError(
                f"validation is {validation}, but a split has at least 1 image per class; null holds out none"
            )
        self.validation = validation
        self._on_device: dict[tuple[Measured, torch.device], ImageSet] = {}

    @property
    def num_classes(self) -> int:
        """K."""
        return self.source.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """One word per class."""
        return tuple(self.source.class_names)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of one sample: (C, H, W) of images, (d,) of vectors."""
        return self.source.image_shape

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """Training images per class, after the imbalance.

        Raises:
            UserError: if the imbalance does not fit the source.
        """
        return tuple(self.train_set.labels.bincount(minlength=self.num_classes).tolist())

    @property
    def majority(self) -> tuple[int, ...] | None:
        """The majority classes of a step imbalance, else None."""
        return self.imbalance.majority(self.num_classes)

    @cached_property
    def indices(self) -> Tensor:
        """The training images kept: ascending positions in the source's training split, int64 (sum n_c,)."""
        return self.imbalance.indices(self.source, self.seed)

    @cached_property
    def train_set(self) -> ImageSet:
        """The training split after the imbalance."""
        train = self.source.train
        return train if len(self.indices) == len(train.labels) else train.at(self.indices)

    @cached_property
    def validation_indices(self) -> Tensor:
        """The images held out: ascending positions in the source's training split, int64 (K validation,).
        They are equal for all imbalances with one seed.

        Raises:
            UserError: if a class has too few images for both.
        """
        if self.validation is None:
            return torch.empty(0, dtype=torch.int64)
        labels = self.source.train.labels
        left = labels.bincount(minlength=self.num_classes) - torch.tensor(self.class_counts)
        if left.min() < self.validation:
            c = int(left.argmin())
            raise UserError(
                f"validation asks for {self.validation} images per class, but class {c} has"
                f" {int(left[c])} beside those trained on: lower n_max of the imbalance, or validation"
            )
        indices = hold_out(labels, self.validation, self.seed)
        if torch.isin(indices, self.indices).any():
            raise UserError(
                "images that validation would hold out are trained on, as they were chosen by another seed:"
                f" use the seed of the manifest, not {self.seed}"
            )
        return indices

    @cached_property
    def validation_set(self) -> ImageSet:
        """The images held out."""
        return self.source.train.at(self.validation_indices)

    def setup(self, stage: str) -> None:
        """Try the augmentation; write the manifest of a new fit, or check it if the fit continues an old one.

        Raises:
            UserError: if an augmentation cannot change these samples, if the sampler does not fit the epochs,
                or if the existing run trained on other data.
        """
        if stage != "fit":
            return
        first = self.train_set.images[torch.tensor([0])]
        for augment in self.augment:
            first = augment(first, torch.Generator())
        if self.trainer is None or getattr(self.trainer, "fast_dev_run", False):
            return
        self.sampler.check(fit_end.length(self.trainer, self.batches(self.trainer)))
        if self.trainer.default_root_dir == os.getcwd():  # noqa: PTH109 - Lightning's own, where none was given
            return
        path = Path(self.trainer.default_root_dir) / MANIFEST
        content = manifest(self.source, self.imbalance, self.seed, self.indices, self.validation_indices)
        if path.exists():
            verify(path, content)
        elif self.trainer.is_global_zero:
            write(path, content)

    def teardown(self, stage: str) -> None:
        """Free the device's memory."""
        self._on_device.clear()

    def train_dataloader(self) -> TrainingBatches:
        """Shuffled, augmented batches."""
        order = EpochOrder(self.train_set.labels, self.sampler, self.seed, self._shard)
        mixup = None if self.mixup is None else Mixup(self.mixup, self.num_classes)
        data = self._resident("train")
        return TrainingBatches(
            data, order, self.batch_size, self.normalise, self.augment, mixup, self._device
        )

    def val_dataloader(self) -> dict[Measured, EvaluationBatches | Withheld]:
        """The clean training split, the validation split if there is one, and the test split, by name."""
        train, test = self._evaluation("train"), self._evaluation("test")
        if self.validation is None:
            return {"train": train, "test": test}
        withheld = Withheld(test, self._last_measurement)
        return {"train": train, "validation": self._evaluation("validation"), "test": withheld}

    def test_dataloader(self) -> EvaluationBatches:
        """The test split."""
        return self._evaluation("test")

    def predict_dataloader(self) -> EvaluationBatches:
        """The test split."""
        return self._evaluation("test")

    @cached_property
    def normalise(self) -> Preparation:
        """Turns samples of the source into the network's input; float32 samples are unchanged."""
        statistics = self.source.mean_and_std
        return Normalise(*statistics) if statistics is not None else _as_they_are

    def _last_measurement(self) -> bool:
        trainer = self.trainer
        if trainer is None or trainer.state.fn != "fit":
            return True
        return fit_end.is_over(trainer)

    def batches(self, trainer: Trainer) -> int:
        """Batches of one epoch on this rank."""
        every = -(-(len(self.train_set.labels) // trainer.world_size) // self.batch_size)
        limit = trainer.limit_train_batches
        return max(1, min(every, limit if isinstance(limit, int) else int(every * limit)))

    def smallest_batch(self, trainer: Trainer) -> int:
        """Images in the smallest training batch of a rank."""
        share = len(self.train_set.labels) // trainer.world_size
        left = share - (self.batches(trainer) - 1) * self.batch_size
        return min(self.batch_size, left)

    def _evaluation(self, split: Measured) -> EvaluationBatches:
        data = self._resident(split)
        return EvaluationBatches(data, self.eval_batch_size, self.normalise, self._shard, self._device)

    def _resident(self, split: Measured) -> ImageSet:
        """A split, on the training device if there is room."""
        key = (split, self._device)
        if key not in self._on_device:
            data = {
                "train": lambda: self.train_set,
                "validation": lambda: self.validation_set,
                "test": lambda: self.source.test,
            }[split]()
            self._on_device[key] = data.resident(self._device)
        return self._on_device[key]

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    @property
    def _shard(self) -> Shard:
        if self.trainer is None:
            return Shard()
        return Shard(self.trainer.global_rank, self.trainer.world_size)


def _as_they_are(samples: Tensor) -> Tensor:
    return samples
