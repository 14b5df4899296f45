"""The order in which, and how often, an epoch visits the training images."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from deq_collapse.data.draw import Purpose, keys, permutation, uniform
from deq_collapse.errors import UserError


class Sampler(ABC):
    """A rule for the images of an epoch, determined by seed and epoch alone."""

    @abstractmethod
    def order(self, labels: Tensor, seed: int, epoch: int) -> Tensor:
        """Positions of the samples of one epoch over all ranks, in the order of training.

        Args:
            labels: of the training images, int64 (N,), on the CPU.
            seed: of the data, not negative.
            epoch: counted from 0.

        Returns:
            Positions in `labels`, int64 (N,): an epoch has as many samples as there are images.
        """

    def check(self, epochs: int) -> None:  # noqa: B027 - most rules fit any number of epochs
        """Called when a fit begins, with the number of its epochs, which is below 1 if unknown.

        Raises:
            UserError: for a rule that does not fit this number.
        """


class Shuffled(Sampler):
    """Every image once."""

    def order(self, labels: Tensor, seed: int, epoch: int) -> Tensor:
        """A random order of all images."""
        return permutation(len(labels), Purpose.ORDER, seed, epoch)


class Resampled(Sampler):
    """Visits classes in proportion to n_c^power, where n_c is their number of images: 0 is class-balanced
    sampling, 1/2 is square-root sampling, and 1 visits every image once (Kang et al. 2020, arXiv 1910.09217,
    eq. 1).

    Of an epoch's N samples, class c has N n_c^power / sum_k n_k^power, rounded up or down so that the
    expectation is exact. They cycle through its images in a random order, as in class-aware sampling (Shen et
    al. 2016, arXiv 1512.05830): within a class, the numbers of visits differ by at most one.

    Args:
        power: in 0..1.
        from_epoch: completed epochs after which re-sampling begins; until then every image is visited once.
            Deferred re-sampling (Cao et al. 2019, arXiv 1906.07413).

    Raises:
        UserError: if an argument is out of range.
    """

    def __init__(self, power: float = 0.0, from_epoch: int = 0) -> None:
        if not 0 <= power <= 1 or from_epoch < 0:
            raise UserError(
                f"power is {power:g} and from_epoch {from_epoch}, but power is in 0..1 and from_epoch >= 0"
            )
        self.power = power
        self.from_epoch = from_epoch

    def check(self, epochs: int) -> None:
        """Refuses a re-sampling that would, or might, never begin."""
        if self.from_epoch and epochs < 1:
            raise UserError(
                f"re-sampling begins after {self.from_epoch} epochs, which needs a run whose length is known"
                " beforehand: trainer.max_epochs or max_steps, and neither max_time nor early stopping"
            )
        if 0 < epochs <= self.from_epoch:
            raise UserError(
                f"re-sampling begins after {self.from_epoch} epochs, but the run has {epochs}: lower"
                " data.sampler.init_args.from_epoch"
            )

    def order(self, labels: Tensor, seed: int, epoch: int) -> Tensor:
        """A random order of all samples of the epoch."""
        order = permutation(len(labels), Purpose.ORDER, seed, epoch)
        if epoch < self.from_epoch:
            return order
        images = labels.bincount()
        visits = self._visits(images, float(uniform(1, Purpose.RESAMPLING, seed, epoch, 0)))
        # The images class by class, each class in a random order.
        random = keys(len(labels), Purpose.RESAMPLING, seed, epoch, 1).argsort(stable=True)
        grouped = random[labels[random].argsort(stable=True)]
        start = images.cumsum(0) - images
        # Visit number t of a class goes to its image t modulo n_c.
        label = torch.arange(len(images)).repeat_interleave(visits)
        turn = torch.arange(len(labels)) - (visits.cumsum(0) - visits)[label]
        return grouped[start[label] + turn % images[label]][order]

    def _visits(self, images: Tensor, offset: float) -> Tensor:
        """Samples per class, int64 (K,), with sum N: systematic sampling with an offset in 0..1."""
        share = torch.where(images > 0, images.double().pow(self.power), 0)
        reached = (share.cumsum(0) / share.sum() * images.sum()).add(offset).floor().long()
        reached[-1] = images.sum()  # regardless of rounding
        return reached.diff(prepend=torch.zeros(1, dtype=torch.int64))
