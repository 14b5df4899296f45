"""Augmentation of whole batches, on their device."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from deq_collapse.data.draw import Purpose, beta
from deq_collapse.errors import UserError


class Augmentation(ABC):
    """A random change of a batch of images that keeps their labels."""

    @abstractmethod
    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change images as the source returns them, uint8 (N, C, H, W) or float32 (N, ...), each
        independently and without a change of shape.

        `generator` is on the CPU, so that every device gets the same images.
        """


class CropFlip(Augmentation):
    """Random crop of the zero-padded image, then a random horizontal flip; the usual pair for CIFAR.

    Equal in distribution to torchvision's `RandomCrop(H, padding)` and `RandomHorizontalFlip(flip)` per
    image.

    Args:
        padding: zero pixels added on every side before the crop.
        flip: probability of a flip, in 0..1; use 0 for digits and letters, which a flip would distort.

    Raises:
        UserError: if an argument is out of range.
    """

    def __init__(self, padding: int = 4, flip: float = 0.5) -> None:
        if padding < 0 or not 0 <= flip <= 1:
            raise UserError(f"padding is {padding} and flip {flip:g}, but padding >= 0 and flip is in 0..1")
        self.padding = padding
        self.flip = flip

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and flip every image (N, C, H, W) by its own draws."""
        count, channels, height, width = _shape(self, images)
        down, right = torch.randint(2 * self.padding + 1, (2, count), generator=generator)
        flipped = torch.rand(count, generator=generator) < self.flip
        padded = pad(images, [self.padding] * 4)
        both = torch.cat([padded, padded.flip(-1)])
        # Every row of a crop is a window of the flat pixels: index_select copies whole windows, which is
        # several times faster than indexing pixels.
        tall, wide = both.shape[2:]
        image = torch.arange(count) + count * flipped
        plane = image[:, None] * channels + torch.arange(channels)
        row = plane[:, :, None] * tall + down[:, None, None] + torch.arange(height)
        start = row * wide + right[:, None, None]
        windows = both.flatten().unfold(0, width, 1)
        return windows.index_select(0, start.flatten().to(images.device, non_blocking=True)).view_as(images)


class Cutout(Augmentation):
    """Paints over one square of every image. Its centre is anywhere in the image, so the square may extend
    beyond the border (DeVries & Taylor 2017, arXiv 1708.04552).

    Args:
        size: side of the square, at least 1; the paper uses 16 of CIFAR-10's 32 pixels.
        fill: value of the square, in 0..255. The paper uses the data set's mean.

    Raises:
        UserError: if an argument is out of range.
    """

    def __init__(self, size: int = 16, fill: int = 0) -> None:
        if size < 1 or not 0 <= fill <= 255:
            raise UserError(f"size is {size} and fill {fill}, but size >= 1 and fill is in 0..255")
        self.size = size
        self.fill = fill

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Paint over a square of every image (N, C, H, W) by its own draws."""
        count, _, height, width = _shape(self, images)
        down, right = (self._covered(n, count, generator) for n in (height, width))
        hidden = (down[:, :, None] & right[:, None, :]).unsqueeze(1)
        return images.masked_fill(hidden.to(images.device, non_blocking=True), self.fill)

    def _covered(self, length: int, count: int, generator: torch.Generator) -> Tensor:
        """Which positions along one side the squares cover, bool (count, length)."""
        first = torch.randint(length, (count, 1), generator=generator) - self.size // 2
        position = torch.arange(length)
        return (first <= position) & (position < first + self.size)


class Mixup:
    """Mixes every sample and its label with another one of its batch (Zhang et al. 2018, arXiv 1710.09412).

    Equal in distribution to torchvision's `v2.MixUp`: one share per batch, from Beta(alpha, alpha); the
    partner is the previous sample. Labels become class probabilities, which cross entropy accepts.

    Args:
        alpha: above 0; 1 makes all shares equally likely, small values hardly change most samples.
        num_classes: K.
    """

    def __init__(self, alpha: float, num_classes: int) -> None:
        self.alpha = alpha
        self.num_classes = num_classes

    def __call__(self, x: Tensor, labels: Tensor, *seed: int) -> tuple[Tensor, Tensor]:
        """Mix float samples (N, ...) and labels (N,) to samples (N, ...) and probabilities float32 (N, K).

        The words of `seed` determine the share.
        """
        share = beta(self.alpha, Purpose.MIXING, *seed)
        y = one_hot(labels, self.num_classes).float()
        return x.lerp(x.roll(1, 0), share), y.lerp(y.roll(1, 0), share)


def _shape(augmentation: Augmentation, images: Tensor) -> tuple[int, int, int, int]:
    if images.ndim != 4:
        name, shape = type(augmentation).__name__, tuple(images.shape[1:])
        raise UserError(f"{name} changes images (C, H, W), but the samples here have the shape {shape}")
    count, channels, height, width = images.shape
    return count, channels, height, width
