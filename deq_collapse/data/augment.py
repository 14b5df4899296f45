"""Augmentation of whole uint8 batches, on the device they live on."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import pad

from deq_collapse.errors import UserError


class Augmentation(ABC):
    """A random change of a batch of images that leaves their labels."""

    @abstractmethod
    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change uint8 images (N, C, H, W), each on its own, to images of the same shape.

        `generator` lives on the CPU: drawing there gives the same images on every device.
        """


class CropFlip(Augmentation):
    """Random crop out of the zero-padded image, then a random horizontal flip; the usual pair for CIFAR.

    In distribution torchvision's `RandomCrop(H, padding)` and `RandomHorizontalFlip(flip)` per image.

    Args:
        padding: zero pixels added on every side before the crop.
        flip: probability of a flip, in 0..1; 0 for digits and letters, which a flip would spoil.

    Raises:
        UserError: where an argument is out of its range.
    """

    def __init__(self, padding: int = 4, flip: float = 0.5) -> None:
        if padding < 0 or not 0 <= flip <= 1:
            raise UserError(f"padding is {padding} and flip {flip:g}, but padding >= 0 and flip is in 0..1")
        self.padding = padding
        self.flip = flip

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and flip every image by draws of its own."""
        count, channels, height, width = images.shape
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
        return windows.index_select(0, start.flatten().to(images.device)).view_as(images)
