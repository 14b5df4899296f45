"""Images that stay in their files until a batch needs them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deq_collapse.errors import UserError


class ImageFiles:
    """RGB images of one size in files, read by index like a uint8 tensor (N, 3, H, W).

    Args:
        paths: of N files, at least 1.
        size: height and width of the images, made by cutting the largest centred square and resizing it
            (bicubic, antialiased); None if all have the same size already.
        workers: processes that read ahead; 0 reads in this process. The images do not depend on it.

    Raises:
        UserError: if the first image cannot be decoded, and later if another cannot be decoded or has a
            different size; the message names the file.
    """

    dtype = torch.uint8
    ndim = 4

    def __init__(self, paths: Sequence[str], size: int | None = None, workers: int = 0) -> None:
        self.paths = paths
        self.size = size
        self.workers = workers
        height, width, _ = decode(paths[0], size).shape
        self.shape = (len(paths), 3, height, width)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """The images at these positions, int64 (n,), read in this process: uint8 (n, 3, H, W)."""
        _, channels, height, width = self.shape
        pixels = np.empty((len(indices), height, width, channels), dtype=np.uint8)
        for i, index in enumerate(indices.tolist()):
            image = decode(self.paths[index], self.size)
            if image.shape != pixels.shape[1:]:
                found, first = (" x ".join(map(str, shape[:2])) for shape in (image.shape, (height, width)))
                raise UserError(
                    f"{self.paths[index]} is {found} pixels, but {self.paths[0]} is {first}: give a size that"
                    " all are brought to"
                )
            pixels[i] = image
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def only(self, indices: Tensor) -> ImageFiles:
        """Only the files at these positions."""
        return ImageFiles([self.paths[i] for i in indices.tolist()], self.size, self.workers)

    def fingerprint(self) -> bytes:
        """Names, relative to their common folder, and sizes in bytes; pixels may be too many to read."""
        shared = os.path.commonpath([os.path.dirname(path) for path in self.paths])  # noqa: PTH120
        names = (path.removeprefix(shared).replace(os.sep, "/") for path in self.paths)
        sizes = (Path(path).stat().st_size for path in self.paths)
        return "".join(f"{name}\0{size}\n" for name, size in zip(names, sizes, strict=True)).encode()

    def batches(self, positions: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images at each of these positions, int64 (n,); the workers read ahead."""
        loader = DataLoader(
            _Batches(self),
            batch_size=None,
            sampler=positions,
            num_workers=self.workers,
            # Without its own generator it would draw from torch's, and change the network's random numbers.
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


class _Batches(Dataset[Tensor | UserError]):
    """What a worker reads; it returns an error, because raising it there would wrap it in a traceback."""

    def __init__(self, files: ImageFiles) -> None:
        self.files = files

    def __getitem__(self, indices: Tensor) -> Tensor | UserError:
        try:
            return self.files[indices]
        except UserError as error:
            return error


def decode(path: str, size: int | None) -> np.ndarray:
    """One image as RGB, uint8 (H, W, 3); 16 bits per channel become the nearest of 8.

    Raises:
        UserError: if it cannot be decoded, is partly transparent, or has pixels of unknown range.
    """
    try:
        with Image.open(path) as image:
            picture = _rgb(image, path)
            if size is not None:
                picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
            return np.array(picture)
    except UserError:
        raise
    # Pillow's decoders pass on any error: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise UserError(f"the image {path} cannot be decoded: {error}") from error


def _rgb(image: Image.Image, path: str) -> Image.Image:
    """Convert to RGB; Pillow would clip 16 bits at 255, and leave colours under transparency to chance."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # grey, 16 bits
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UserError(
            f"the image {path} has pixels of 32 bits, whose range is not known: save it with 8 or 16 bits"
        )
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        raise UserError(
            f"the image {path} is partly transparent: save it without, on a background of one colour"
        )
    return image.convert("RGB")
