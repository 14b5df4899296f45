"""The images and labels of one split, and taking batches from them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deq_collapse.data.image_files import ImageFiles

Batch = tuple[Tensor, Tensor]

DEVICE_SHARE = 0.25
"""Share of a GPU's free memory that the images of one split may take; the rest is for the network."""


class ImageSet(NamedTuple):
    """Samples and labels of one split.

    `images` are uint8 (N, C, H, W), in memory or in their files, or float32 (N, ...) in memory, which the
    network receives unchanged. `labels` are int64 (N,) in 0..K-1, in memory.
    """

    images: Tensor | ImageFiles
    labels: Tensor

    def at(self, indices: Tensor) -> ImageSet:
        """The samples at these positions, int64 (n,), in this order."""
        if isinstance(self.images, Tensor):
            return ImageSet(self.images[indices], self.labels[indices])
        return ImageSet(self.images.only(indices), self.labels[indices])

    def batches(self, positions: Sequence[Tensor], device: torch.device) -> Iterator[Batch]:
        """The samples at each of these positions, int64 (n,), on a device."""
        labels = (self.labels.index_select(0, at) for at in positions)
        for x, y in zip(self._images(positions), labels, strict=True):
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)

    def sha256(self) -> str:
        """Checksum of the labels (int64, little-endian) followed by the images: their values (N, ...) or, for
        files, names and sizes.
        """
        digest = hashlib.sha256(self.labels.numpy().astype(np.dtype("<i8"), copy=False).tobytes())
        if isinstance(self.images, Tensor):
            digest.update(self.images.contiguous().numpy().data)
        else:
            digest.update(self.images.fingerprint())
        return digest.hexdigest()

    def _images(self, positions: Sequence[Tensor]) -> Iterator[Tensor]:
        if not isinstance(self.images, Tensor):
            return self.images.batches(positions)
        return (self.images.index_select(0, at) for at in positions)

    def resident(self, device: torch.device) -> ImageSet:
        """The set on a device if there is room for it; else the set itself."""
        if not isinstance(self.images, Tensor) or self.images.nbytes > DEVICE_SHARE * free_bytes(device):
            return self
        return ImageSet(self.images.to(device), self.labels.to(device))


def free_bytes(device: torch.device) -> float:
    """Memory available for images: the free memory of a GPU, and unlimited on the CPU, where they are
    already. For other accelerators it is unknown: 0.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return math.inf if device.type in ("cpu", "meta") else 0
