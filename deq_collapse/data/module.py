"""The LightningDataModule: a source, an imbalance, and batches of them for every rank."""

from functools import cached_property
from pathlib import Path

from lightning.pytorch import LightningDataModule
from torch import Tensor

from deq_collapse.data.augment import Augmentation
from deq_collapse.data.batches import EvaluationBatches, Normalise, Shard, TrainingBatches
from deq_collapse.data.imbalance import Imbalance, select
from deq_collapse.data.manifest import manifest, verify, write
from deq_collapse.data.source import ImageSet, Source
from deq_collapse.errors import UserError


class CollapseDataModule(LightningDataModule):
    """Training images under an imbalance, and clean training and test images to measure on.

    A batch is `(x, y)`: x float32 (N, C, H, W), normalised per channel, and y int64 (N,). Data are loaded
    (and downloaded, once per machine) when a property or a loader first needs them. The images a run trains
    on are written to `manifest.json` beside it, and a run that continues there must train on the same.

    Args:
        source: the data set.
        imbalance: images per class of the training split. The test split is never changed.
        batch_size: training images per batch and rank.
        eval_batch_size: the most images per batch and rank of an evaluation.
        seed: decides the images kept, their order in every epoch and the augmentation; not negative.
        augment: changes training images; never those measured on.
    """

    def __init__(
        self,
        source: Source,
        imbalance: Imbalance,
        batch_size: int = 128,
        eval_batch_size: int = 1024,
        seed: int = 0,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1:
            raise UserError(
                f"batch sizes are {batch_size} and {eval_batch_size}, but a batch has at least 1 image"
            )
        if seed < 0:
            raise UserError(f"the seed of the data is {seed}, but a seed is not negative")
        self.source = source
        self.imbalance = imbalance
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.augment = augment

    @property
    def num_classes(self) -> int:
        """K."""
        return self.source.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """One word per class."""
        return tuple(self.source.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.source.image_shape

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """Training images per class, after the imbalance.

        Raises:
            UserError: where the imbalance does not fit the source.
        """
        return self.imbalance.counts(self.source.train.labels.bincount(minlength=self.num_classes).tolist())

    @property
    def majority(self) -> tuple[int, ...] | None:
        """The majority classes of a step imbalance, else None."""
        return self.imbalance.majority(self.num_classes)

    @cached_property
    def indices(self) -> Tensor:
        """The training images kept: ascending positions in the source's training split, int64 (sum n_c,)."""
        return select(self.source.train.labels, self.class_counts, self.seed)

    @cached_property
    def train_set(self) -> ImageSet:
        """The training split after the imbalance."""
        return ImageSet(*(part[self.indices] for part in self.source.train))

    def setup(self, stage: str) -> None:
        """Write the manifest beside a new fit; check it where the fit continues an old one.

        Raises:
            UserError: where the run that lies there trained on other data.
        """
        if stage != "fit" or self.trainer is None or getattr(self.trainer, "fast_dev_run", False):
            return
        path = Path(self.trainer.default_root_dir) / "manifest.json"
        content = manifest(self.source, self.imbalance, self.seed, self.class_counts, self.indices)
        if path.exists():
            verify(path, content)
        elif self.trainer.is_global_zero:
            write(path, content)

    def train_dataloader(self) -> TrainingBatches:
        """Shuffled, augmented batches."""
        return TrainingBatches(
            self.train_set, self.normalise, self.batch_size, self.seed, self._shard, self.augment
        )

    def val_dataloader(self) -> list[EvaluationBatches]:
        """The clean training split, then the test split."""
        return [self._evaluation(self.train_set), self._evaluation(self.source.test)]

    def test_dataloader(self) -> EvaluationBatches:
        """The test split."""
        return self._evaluation(self.source.test)

    def predict_dataloader(self) -> EvaluationBatches:
        """The test split."""
        return self._evaluation(self.source.test)

    def _evaluation(self, data: ImageSet) -> EvaluationBatches:
        return EvaluationBatches(data, self.normalise, self.eval_batch_size, self._shard)

    @property
    def normalise(self) -> Normalise:
        """From uint8 images to what the network sees."""
        return Normalise(*self.source.mean_and_std)

    @property
    def _shard(self) -> Shard:
        if self.trainer is None:
            return Shard()
        return Shard(self.trainer.global_rank, self.trainer.world_size)
