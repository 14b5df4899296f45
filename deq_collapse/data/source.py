"""The base of data sets: samples and labels of a training and a test split."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from deq_collapse.data.image_files import ImageFiles
from deq_collapse.data.image_set import ImageSet
from deq_collapse.errors import UserError

Split = Literal["train", "test"]
"""The splits of a source; a validation split is held out of its training split."""

CHANNELS = range(1, 5)
"""Numbers of channels by which the axis of channels is recognised."""

IMAGES_FOR_MEAN = 10_000
"""Largest number of images read for mean and standard deviation if they are in files."""


class Source(ABC):
    """A named data set; a subclass needs only `load`.

    `name` and `class_names` have defaults (the class's name; the numbers 0..K-1) that a subclass may set as
    plain class attributes. Each split is loaded once, when first used, and then kept.

    Example:
        >>> import torch
        >>> class Stripes(Source):
        ...     def load(self, split):
        ...         labels = torch.arange(20) % 2
        ...         images = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
        ...         images[labels == 1, :, ::2] = 255
        ...         return images, labels
        >>> Stripes().num_classes, Stripes().image_shape, Stripes().class_names
        (2, (1, 8, 8), ('0', '1'))
    """

    @abstractmethod
    def load(self, split: Split) -> tuple[Tensor | ImageFiles, Tensor]:
        """Read one split: images and labels int64 (N,) in 0..K-1.

        Images are uint8 (N, C, H, W) with values 0..255, which are normalised per channel before they reach
        the network; `ImageFiles` are read when a batch needs them. The network receives float32 samples of
        any shape (N, ...), such as vectors (N, d), unchanged.

        Every call must return the same images in the same order, because images are chosen by index.

        Raises:
            UserError: if files are missing or damaged.
        """

    @property
    def name(self) -> str:
        """Name of this data set in results and manifests."""
        return type(self).__name__

    @property
    def class_names(self) -> Sequence[str]:
        """One word per class, in the order of the labels."""
        return tuple(str(c) for c in range(int(self.train.labels.max()) + 1))

    @cached_property
    def num_classes(self) -> int:
        """K, the number of classes.

        Raises:
            UserError: if a label is not in 0..K-1, or a class has no image in one of the splits.
        """
        classes = len(self.class_names)
        for split, labels in (("training", self.train.labels), ("test", self.test.labels)):
            outside = labels[(labels < 0) | (labels >= classes)]
            if len(outside):
                raise UserError(
                    f"the {split} split of {self.name} has the label {int(outside[0])}, but labels are"
                    f" 0..{classes - 1}"
                )
            absent = (labels.bincount(minlength=classes) == 0).nonzero()
            if len(absent):
                raise UserError(f"the {split} split of {self.name} has no image of class {int(absent[0])}")
        return classes

    @cached_property
    def train(self) -> ImageSet:
        """The training split, before any imbalance."""
        return self._checked("train")

    @cached_property
    def test(self) -> ImageSet:
        """The test split."""
        return self._checked("test")

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of one sample: (C, H, W) of images, (d,) of vectors."""
        return tuple(self.train.images.shape[1:])

    @cached_property
    def mean_and_std(self) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation per channel, float64 (C,), of the training split's pixels in 0..1.

        Computed from the whole training split, before imbalance, so that all runs on one data set see equal
        inputs; for images in files, from up to 10,000 of them, evenly spread. A constant channel gets
        standard deviation 1. None for float32 samples.
        """
        images = self.train.images
        if images.dtype != torch.uint8:
            return None
        # From the histogram of the 256 pixel values: exact, and small for any number of images.
        values = torch.arange(256, dtype=torch.float64) / 255
        if isinstance(images, Tensor):
            histogram = _histogram(images)
        else:
            spread = torch.linspace(0, len(images) - 1, min(len(images), IMAGES_FOR_MEAN)).round().long()
            histogram = torch.stack(
                [_histogram(part) for part in images.batches(torch.split(spread, 256))]
            ).sum(0)
        share = histogram / histogram.sum(1, keepdim=True)
        mean = share @ values
        variance = (share * (values - mean[:, None]).square()).sum(1)
        return mean, torch.where(variance > 0, variance, 1).sqrt()

    @cached_property
    def sha256(self) -> str:
        """Checksum of the training split, by which a manifest identifies it; see `ImageSet.sha256`."""
        return self.train.sha256()

    def _checked(self, split: Split) -> ImageSet:
        who = f"the {split} split of {self.name}"
        images, labels = _pair(self.load(split), who)
        if images.dtype == torch.uint8 and channels_last(images.shape):
            raise UserError(
                f"{who} gives images of shape {tuple(images.shape)}, but channels come second, (N, C, H, W):"
                " images.permute(0, 3, 1, 2)"
            )
        allowed = images.ndim == 4 if images.dtype == torch.uint8 else images.ndim >= 2
        if images.dtype not in (torch.uint8, torch.float32) or not allowed or 0 in images.shape:
            raise UserError(
                f"{who} gives images of type {images.dtype} and shape {tuple(images.shape)}, but images are a"
                " non-empty uint8 tensor (N, C, H, W), other samples a non-empty float32 tensor (N, ...)"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise UserError(
                f"{who} gives labels of type {labels.dtype} and shape {tuple(labels.shape)} for {len(images)}"
                " images, but labels are one int64 per image"
            )
        if split == "test" and images.shape[1:] != self.train.images.shape[1:]:
            raise UserError(
                f"{who} has images of shape {tuple(images.shape[1:])}, its training split {self.image_shape}"
            )
        if isinstance(images, Tensor) and images.is_floating_point() and not images.isfinite().all():
            place = int((~images.isfinite()).flatten(1).any(1).nonzero()[0])
            raise UserError(f"{who} has a value that is no finite number, in sample {place}")
        return ImageSet(images, labels)


def channels_last(shape: Sequence[int]) -> bool:
    """Whether a shape is (N, H, W, C); if both readings are possible, the second axis is the channels."""
    return len(shape) == 4 and shape[1] not in CHANNELS and shape[3] in CHANNELS


def _pair(loaded: Any, who: str) -> tuple[Any, Tensor]:
    """Images and labels as `load` gives them, or numpy's arrays of them.

    Raises:
        UserError: for anything else.
    """
    given = list(loaded) if isinstance(loaded, tuple | list) else [loaded]
    parts = [torch.as_tensor(part) if isinstance(part, np.ndarray) else part for part in given]
    if len(parts) != 2 or not (isinstance(parts[0], Tensor | ImageFiles) and isinstance(parts[1], Tensor)):
        got = ", ".join(type(part).__name__ for part in given)
        raise UserError(f"{who} is ({got}), but load gives two tensors, (images, labels)")
    images, labels = parts
    return images.detach() if isinstance(images, Tensor) else images, labels.detach()


def _histogram(images: Tensor) -> Tensor:
    """Number of times that each channel of uint8 images (N, C, H, W) has each value, float64 (C, 256)."""
    channels = images.transpose(0, 1).flatten(1)
    return torch.stack([torch.bincount(channel, minlength=256) for channel in channels]).double()
