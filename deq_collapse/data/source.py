"""What a data set is here: uint8 images and labels of a training and a test split, all in memory."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from deq_collapse.errors import UserError

Split = Literal["train", "test"]


class ImageSet(NamedTuple):
    """Images of one split: `images` uint8 (N, C, H, W) and `labels` int64 (N,) in 0..K-1."""

    images: Tensor
    labels: Tensor


class Source(ABC):
    """A named data set; a subclass needs no more than `load`.

    `name` and `class_names` have defaults (the class's name; the numbers 0..K-1) that a subclass may set
    as plain class attributes. Each split is loaded once, when first asked for, and then kept.

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
    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Read one split: images uint8 (N, C, H, W) with values 0..255, labels int64 (N,) in 0..K-1.

        Must give the same images in the same order whenever it is called: a split is chosen by index.

        Raises:
            UserError: where the files are missing or damaged.
        """

    @property
    def name(self) -> str:
        """What results and manifests call this data set."""
        return type(self).__name__

    @property
    def class_names(self) -> Sequence[str]:
        """One word per class, in the order of the labels."""
        return tuple(str(c) for c in range(int(self.train.labels.max()) + 1))

    @cached_property
    def num_classes(self) -> int:
        """K, the number of classes.

        Raises:
            UserError: where a label is not in 0..K-1, or a class has no training image.
        """
        classes = len(self.class_names)
        for split, labels in (("training", self.train.labels), ("test", self.test.labels)):
            outside = labels[(labels < 0) | (labels >= classes)]
            if len(outside):
                raise UserError(
                    f"the {split} split of {self.name} has the label {int(outside[0])}, but labels are"
                    f" 0..{classes - 1}"
                )
        absent = (self.train.labels.bincount(minlength=classes) == 0).nonzero()
        if len(absent):
            raise UserError(f"the training split of {self.name} has no image of class {int(absent[0])}")
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
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    @cached_property
    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation per channel, float64 (C,), of the training split's pixels in 0..1.

        Taken from the whole training split, before imbalance, so that all runs on one data set see equal
        inputs. A channel that never varies gets standard deviation 1.
        """
        # From the histogram of the 256 pixel values: exact, and small however many the images are.
        values = torch.arange(256, dtype=torch.float64) / 255
        channels = self.train.images.transpose(0, 1).flatten(1)
        histogram = torch.stack([torch.bincount(c, minlength=256) for c in channels]).double()
        share = histogram / histogram.sum(1, keepdim=True)
        mean = share @ values
        variance = (share * (values - mean[:, None]).square()).sum(1)
        return mean, torch.where(variance > 0, variance, 1).sqrt()

    def _checked(self, split: Split) -> ImageSet:
        images, labels = self.load(split)
        who = f"the {split} split of {self.name}"
        if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
            raise UserError(
                f"{who} gives images of type {images.dtype} and shape {tuple(images.shape)}, but images are a"
                " non-empty uint8 tensor (N, C, H, W)"
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
        return ImageSet(images, labels)
