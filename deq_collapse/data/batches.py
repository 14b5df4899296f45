"""Batches cut by index from images in memory, sharded over ranks.

Not a torch `DataLoader`, for speed, and so that Lightning injects no sampler: its distributed sampler repeats
samples, which would move class means.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from deq_collapse.data.augment import Augmentation
from deq_collapse.data.draw import Purpose, generator, permutation
from deq_collapse.data.source import ImageSet
from deq_collapse.errors import UserError

Batch = tuple[Tensor, Tensor]


class Shard(NamedTuple):
    """Which of how many processes asks."""

    rank: int = 0
    ranks: int = 1


class Normalise:
    """uint8 images (N, C, H, W) to float32: (image / 255 - mean) / std, per channel.

    Args:
        mean: (C,), of pixels in 0..1.
        std: (C,), positive.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.scale = (1 / (255 * std)).float()[:, None, None]
        self.shift = (-mean / std).float()[:, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise on the images' device."""
        return images.float().mul_(self.scale.to(images.device)).add_(self.shift.to(images.device))


class EpochOrder:
    """This rank's share of the order of each epoch.

    All ranks cut one permutation, decided by (seed, epoch), into equal shares; the few samples left over
    (fewer than there are ranks) sit this epoch out. Lightning finds it as `sampler` and calls `set_epoch`.
    """

    def __init__(self, count: int, seed: int, shard: Shard) -> None:
        self.count = count
        self.seed = seed
        self.shard = shard
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, whose order `indices` gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.shard.ranks

    def indices(self) -> Tensor:
        """Positions in the data set, int64 (len(self),)."""
        order = permutation(self.count, Purpose.ORDER, self.seed, self.epoch)
        return order[: len(self) * self.shard.ranks][self.shard.rank :: self.shard.ranks]


class TrainingBatches:
    """Shuffled batches; a new order every epoch, the last batch may be smaller.

    The order depends on (seed, epoch), an augmentation on (seed, epoch, rank, batch). A run that resumes from
    a checkpoint, even one written amid an epoch, sees what the run without a break would have seen.

    Args:
        data: the training split.
        normalise: makes the float images.
        batch_size: images per batch and rank.
        seed: not negative.
        shard: this process among all.
        augment: changes the uint8 images, or None.

    Raises:
        UserError: where there are fewer images than ranks.
    """

    def __init__(
        self,
        data: ImageSet,
        normalise: Normalise,
        batch_size: int,
        seed: int,
        shard: Shard,
        augment: Augmentation | None = None,
    ) -> None:
        _refuse_idle_ranks(data, shard)
        self.data = data
        self.normalise = normalise
        self.batch_size = batch_size
        self.augment = augment
        self.sampler = EpochOrder(len(data.labels), seed, shard)
        self._position = (0, 0)
        self._resume = (0, 0)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that the epoch is read at the first batch: for the first epoch after a start,
        # Lightning calls iter() before set_epoch().
        epoch = self.sampler.epoch
        first = self._resume[1] if self._resume[0] == epoch else 0
        self._resume = (epoch, 0)
        order = self.sampler.indices().to(self.data.labels.device)
        for batch, index in enumerate(torch.split(order, self.batch_size)):
            if batch < first:
                continue
            images = self.data.images.index_select(0, index)
            if self.augment is not None:
                words = (self.sampler.seed, epoch, self.sampler.shard.rank, batch)
                images = self.augment(images, generator(Purpose.AUGMENTATION, *words))
            self._position = (epoch, batch + 1)
            yield self.normalise(images), self.data.labels.index_select(0, index)

    def state_dict(self) -> dict[str, int]:
        """The batches of this epoch already given; Lightning keeps it in the checkpoint."""
        epoch, batch = self._position
        return {"epoch": epoch, "batch": batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the batches already given, where the next epoch to run is still theirs."""
        self._resume = (state["epoch"], state["batch"])


class EvaluationBatches:
    """Batches in the data's own order, each sample exactly once over all ranks.

    Ranks take neighbouring, maybe uneven shards, yet all get the same number of batches, none empty: DDP
    broadcasts buffers in every forward, and a rank with a batch more would wait for ever.

    Args:
        data: a split.
        normalise: makes the float images.
        batch_size: the most images per batch (with 1, some batches of an uneven shard hold 2).
        shard: this process among all.

    Raises:
        UserError: where there are fewer images than ranks.
    """

    def __init__(self, data: ImageSet, normalise: Normalise, batch_size: int, shard: Shard) -> None:
        _refuse_idle_ranks(data, shard)
        smallest, left_over = divmod(len(data.labels), shard.ranks)
        largest = smallest + (left_over > 0)
        self.batches = min(-(-largest // batch_size), smallest)
        images, labels = (part.tensor_split(shard.ranks)[shard.rank] for part in data)
        self.data = ImageSet(images, labels)
        self.normalise = normalise

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        for images, labels in zip(*(part.tensor_split(self.batches) for part in self.data), strict=True):
            yield self.normalise(images), labels


def _refuse_idle_ranks(data: ImageSet, shard: Shard) -> None:
    if len(data.labels) < shard.ranks:
        raise UserError(
            f"there are {shard.ranks} processes but only {len(data.labels)} images:"
            " use at most one process per image"
        )
