"""Augmentation of whole uint8 batches, on the device they live on."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import pad


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
    """

    def __init__(self, padding: int = 4, flip: float = 0.5) -> None:
        self.padding = padding
        self.flip = flip

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Crop and flip every image by draws of its own."""
        count, _, height, width = images.shape
        down, right = torch.randint(2 * self.padding + 1, (2, count), generator=generator).to(images.device)
        flipped = (torch.rand(count, generator=generator) < self.flip).to(images.device)
        windows = pad(images, [self.padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
        cropped = windows[torch.arange(count, device=images.device), :, down, right]
        return torch.where(flipped[:, None, None, None], cropped.flip(-1), cropped)
