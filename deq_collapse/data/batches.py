"""Batches taken by index from the images of a split, sharded over ranks.

Not a torch `DataLoader`, for speed, and to keep Lightning from injecting its distributed sampler, which
repeats samples and would shift class means.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deq_collapse.data.augment import Augmentation, Mixup
from deq_collapse.data.draw import Purpose, generator
from deq_collapse.data.image_set import Batch, ImageSet
from deq_collapse.data.sampler import Sampler
from deq_collapse.errors import UserError

Preparation = Callable[[Tensor], Tensor]
"""Turns samples of the source into the network's input, on their device."""


class Shard(NamedTuple):
    """The rank of a process among all."""

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
        # They stay on the device: a copy per batch would make the host wait for it.
        self.scale, self.shift = self.scale.to(images.device), self.shift.to(images.device)
        return images.float().mul_(self.scale).add_(self.shift)


class EpochOrder:
    """This rank's share of the order of each epoch.

    All ranks divide one order, determined by (seed, epoch), into equal shares; the remaining samples (fewer
    than there are ranks) are left out of this epoch. Lightning finds it as `sampler` and calls `set_epoch`.

    Args:
        labels: of the training images, int64 (N,), on the CPU.
        sampler: determines the order.
        seed: not negative.
        shard: this process among all.

    Raises:
        UserError: if there are fewer images than ranks.
    """

    def __init__(self, labels: Tensor, sampler: Sampler, seed: int, shard: Shard) -> None:
        _refuse_idle_ranks(len(labels), shard)
        self.labels = labels
        self.sampler = sampler
        self.seed = seed
        self.shard = shard
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, whose order `indices` returns."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels) // self.shard.ranks

    def indices(self) -> Tensor:
        """Positions in the data set, int64 (len(self),).

        Raises:
            UserError: if a user's sampler returns a different number of samples.
        """
        order = self.sampler.order(self.labels, self.seed, self.epoch)
        if len(order) != len(self.labels):
            raise UserError(
                f"{type(self.sampler).__name__} gives {len(order)} samples for an epoch, but an epoch has as"
                f" many as there are images, {len(self.labels)}"
            )
        return order[: len(self) * self.shard.ranks][self.shard.rank :: self.shard.ranks]


class TrainingBatches:
    """Shuffled batches in a new order every epoch; the last batch may be smaller.

    The order depends on (seed, epoch), the augmentation on (seed, epoch, rank, batch). A run that resumes
    from a checkpoint, even one written during an epoch, sees the same data as an uninterrupted run.

    Args:
        data: the training split.
        order: of its samples, for this rank.
        batch_size: images per batch and rank.
        prepare: makes the network's input.
        augment: change the images before that, in sequence.
        mixup: mixes samples and labels afterwards, or None.
        device: of the batches.
    """

    def __init__(
        self,
        data: ImageSet,
        order: EpochOrder,
        batch_size: int,
        prepare: Preparation,
        augment: Sequence[Augmentation] = (),
        mixup: Mixup | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.data = data
        self.sampler = order
        self.batch_size = batch_size
        self.prepare = prepare
        self.augment = augment
        self.mixup = mixup
        self.device = torch.device(device)
        self._position = (0, 0)
        self._resume = (0, 0)

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that it reads the epoch at the first batch: in the first epoch after a start,
        # Lightning calls iter() before set_epoch().
        epoch = self.sampler.epoch
        first = self._resume[1] if self._resume[0] == epoch else 0
        self._resume = (epoch, 0)
        order = self.sampler.indices().to(self.data.labels.device)
        positions = torch.split(order, self.batch_size)[first:]
        for batch, (images, labels) in enumerate(self.data.batches(positions, self.device), start=first):
            words = (self.sampler.seed, epoch, self.sampler.shard.rank, batch)
            if self.augment:
                random = generator(Purpose.AUGMENTATION, *words)
                for augment in self.augment:
                    images = augment(images, random)
            x, y = self.prepare(images), labels
            if self.mixup is not None:
                x, y = self.mixup(x, y, *words)
            self._position = (epoch, batch + 1)
            yield x, y

    def state_dict(self) -> dict[str, int]:
        """The number of batches already returned in this epoch; Lightning stores it in the checkpoint."""
        epoch, batch = self._position
        return {"epoch": epoch, "batch": batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the batches already returned, if the next epoch is still the same."""
        self._resume = (state["epoch"], state["batch"])


class Withheld:
    """Evaluation batches of a split that is not used before the end: empty until then.

    Args:
        batches: of the split.
        over: whether the end has come; called at every pass.
    """

    def __init__(self, batches: "EvaluationBatches", over: Callable[[], bool]) -> None:
        self.batches = batches
        self.over = over

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches) if self.over() else iter(())


class EvaluationBatches:
    """Batches in the data's own order, each sample exactly once over all ranks.

    Ranks take adjacent shards, possibly of unequal size, but all get the same number of batches, none of them
    empty: DDP broadcasts buffers in every forward, and a rank with one more batch would wait forever.

    Args:
        data: a split.
        batch_size: largest number of images per batch (with 1, some batches of an uneven shard hold 2).
        prepare: makes the network's input.
        shard: this process among all.
        device: of the batches.

    Raises:
        UserError: if there are fewer images than ranks.
    """

    def __init__(
        self,
        data: ImageSet,
        batch_size: int,
        prepare: Preparation,
        shard: Shard,
        device: torch.device | str = "cpu",
    ) -> None:
        count = len(data.labels)
        _refuse_idle_ranks(count, shard)
        smallest, left_over = divmod(count, shard.ranks)
        largest = smallest + (left_over > 0)
        self.batches = min(-(-largest // batch_size), smallest)
        order = torch.arange(count, device=data.labels.device)
        self.positions = order.tensor_split(shard.ranks)[shard.rank].tensor_split(self.batches)
        self.data = data
        self.prepare = prepare
        self.device = torch.device(device)

    def __len__(self) -> int:
        return self.batches

    def places(self, samples: Sequence[int]) -> dict[int, list[int]]:
        """Where these samples of the split are on this rank: by batch, their places in it."""
        found: dict[int, list[int]] = {}
        end = int(self.positions[0][0])
        for batch, positions in enumerate(self.positions):
            start, end = end, end + len(positions)
            if inside := [sample - start for sample in samples if start <= sample < end]:
                found[batch] = inside
        return found

    def __iter__(self) -> Iterator[Batch]:
        for images, labels in self.data.batches(self.positions, self.device):
            yield self.prepare(images), labels


def _refuse_idle_ranks(count: int, shard: Shard) -> None:
    if count < shard.ranks:
        raise UserError(
            f"there are {shard.ranks} processes but only {count} images: use at most one process per image"
        )
