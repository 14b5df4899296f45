"""A data set in one file of arrays: NumPy's `.npz` or torch's `.pt`."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deq_collapse.data.source import CHANNELS, Source, Split, channels_last
from deq_collapse.errors import UserError

KEYS = ("train_images", "train_labels", "test_images", "test_labels")


class TensorFile(Source):
    """Arrays under the keys `train_images`, `train_labels`, `test_images` and `test_labels`, as in the `.npz`
    files of MedMNIST.

    Images are uint8 (N, H, W), (N, C, H, W) or (N, H, W, C), with 1 to 4 channels; if both readings are
    possible, the second axis is the channels. float32 or float64 arrays have shape (N, d), such as features
    of another network, (N, C, H, W) or, for square images, (N, H, W, C); the network receives their values
    unchanged, channels first. Labels are whole numbers in 0..K-1, (N,) or (N, 1). A key `class_names`, K
    words, is optional.

    Args:
        path: of an `.npz` file written by `numpy.savez`, or of a `.pt` or `.pth` file to which `torch.save`
            wrote a dict of tensors (names as a list). Pickled objects are not loaded.
        name: name of the data set in results and manifests; None uses the file's name.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self.path = Path(path)
        self._name = name

    @property
    def name(self) -> str:
        """The given name, or the file's."""
        return self._name or self.path.stem

    @cached_property
    def class_names(self) -> Sequence[str]:
        """Those in the file, or the numbers 0..K-1."""
        names = self._arrays.get("class_names")
        return tuple(super().class_names) if names is None else tuple(str(name) for name in names)

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, C, H, W) or samples float32 (N, ...), and labels (N,)."""
        missing = [key for key in KEYS if key not in self._arrays]
        if missing:
            raise UserError(
                f"{self.path} has no {missing[0]}; its keys are {', '.join(sorted(self._arrays)) or 'none'},"
                f" but needed are {', '.join(KEYS)}"
            )
        images, labels = (self._tensor(f"{split}_{part}") for part in ("images", "labels"))
        if labels.is_floating_point() or labels.is_complex():
            raise UserError(f"{split}_labels of {self.path} are {labels.dtype}, but labels are whole numbers")
        labels = labels.squeeze(1) if labels.shape[1:] == (1,) else labels
        return self._channels_second(images), labels.long()

    def _channels_second(self, images: Tensor) -> Tensor:
        if images.dtype in (torch.float32, torch.float64):
            return self._floats(images).float()
        if images.dtype != torch.uint8:
            return images  # every source refuses it
        if images.ndim == 3:
            return images.unsqueeze(1)
        if channels_last(images.shape):
            return images.permute(0, 3, 1, 2).contiguous()
        if images.ndim != 4 or images.shape[1] in CHANNELS:
            return images
        raise UserError(
            f"{self.path} has images of shape {tuple(images.shape)}, but images are (N, H, W), (N, C, H, W)"
            f" or (N, H, W, C) with 1 to {CHANNELS[-1]} channels C"
        )

    def _floats(self, samples: Tensor) -> Tensor:
        """Channels second; there may be many, as in a feature map."""
        shape = samples.shape
        if not channels_last(shape) or shape[2] == shape[3]:
            return samples
        if shape[1] == shape[2]:
            return samples.permute(0, 3, 1, 2).contiguous()
        raise UserError(
            f"{self.path} has samples of shape {tuple(shape)}, which may be (N, C, H, W) or (N, H, W, C):"
            " save images channels first"
        )

    def _tensor(self, key: str) -> Tensor:
        try:
            return torch.as_tensor(self._arrays[key])
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{key} of {self.path} is no array of numbers: {error}") from error

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        if self.path.suffix not in (".npz", ".pt", ".pth"):
            raise UserError(f"{self.path} ends in '{self.path.suffix}', but it is read as .npz, .pt or .pth")
        try:
            if self.path.suffix == ".npz":
                with self.path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                    arrays = dict(content)
            else:
                arrays = torch.load(self.path, map_location="cpu", weights_only=True)
        # The errors of NumPy's and torch's readers about a damaged file have no common base.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{self.path} cannot be read as a {self.path.suffix} file: {reason}") from error
        if not isinstance(arrays, dict):
            raise UserError(f"{self.path} holds a {type(arrays).__name__}, but a dict of tensors is needed")
        return arrays
