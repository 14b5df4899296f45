"""Any tree of images in class folders, kept in memory if it fits."""

import math
import os
from functools import cached_property
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file

from deq_collapse.data.image_files import ImageFiles
from deq_collapse.data.image_set import ImageSet
from deq_collapse.data.source import Source, Split
from deq_collapse.errors import UserError


class ImageFolder(Source):
    """The images of `root`/train/CLASS/ and `root`/test/CLASS/, in the formats of torchvision's ImageFolder.

    All are read as RGB. The classes are the folders of `root`/train in alphabetic order. A warning reports
    skipped files: those of other formats, and those outside the class folders.

    Args:
        root: the folder that holds train/ and test/.
        name: name of the data set in results and manifests.
        size: height and width of the images, made by cutting the largest centred square and resizing it; None
            if all have the same size already.
        memory: bytes that the decoded images of a split may take. A larger split is read from its files in
            every epoch; 0 always does so. The chosen images, their order and augmentation are the same.
        workers: processes that decode.

    Raises:
        UserError: if an argument is out of range.
    """

    name = "image_folder"

    def __init__(
        self,
        root: str | os.PathLike[str],
        name: str = "image_folder",
        size: int | None = None,
        memory: int = 8 * 2**30,
        workers: int = 2,
    ) -> None:
        if (size is not None and size < 1) or memory < 0 or workers < 0:
            raise UserError(
                f"size is {size}, memory {memory} and workers {workers}, but a size is at least 1 pixel, and"
                " the others are not negative"
            )
        self.root = Path(root)
        self.name = name
        self.size = size
        self.memory = memory
        self.workers = workers

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the class folders."""
        return tuple(self._train_tree.classes)

    def load(self, split: Split) -> tuple[Tensor | ImageFiles, Tensor]:
        """Images uint8 (N, 3, H, W) and labels (N,), in alphabetic order of class and file."""
        tree = self._train_tree if split == "train" else self._tree("test")
        if tuple(tree.classes) != self.class_names:
            differing = sorted(set(tree.classes) ^ set(self.class_names))
            raise UserError(f"the train and test folders of {self.root} differ in the class {differing[0]}")
        files, labels = self._files(tree), torch.tensor(tree.targets)
        if math.prod(files.shape) > self.memory:
            return files, labels
        images = torch.empty(files.shape, dtype=torch.uint8)
        parts = torch.split(torch.arange(len(files)), 256)
        for part, batch in zip(parts, files.batches(parts), strict=True):
            images[part] = batch
        return images, labels

    @cached_property
    def sha256(self) -> str:
        """Checksum of the names, sizes and labels of the training files, even if the images are in memory:
        this keeps manifests equal, and decoders may differ in the last bit of a pixel.
        """
        tree = self._train_tree
        return ImageSet(self._files(tree), torch.tensor(tree.targets)).sha256()

    def _files(self, tree: datasets.ImageFolder) -> ImageFiles:
        return ImageFiles([path for path, _ in tree.samples], self.size, self.workers)

    @cached_property
    def _train_tree(self) -> datasets.ImageFolder:
        return self._tree("train")

    def _tree(self, split: Split) -> datasets.ImageFolder:
        folder, formats = self.root / split, ", ".join(IMG_EXTENSIONS)
        left_out: list[str | Path] = []

        def is_image(path: str) -> bool:
            known: bool = is_image_file(path)
            if not known and not Path(path).name.startswith("."):
                left_out.append(path)
            return known

        try:
            left_out += [path for path in folder.iterdir() if is_image_file(path.name) and path.is_file()]
            tree = datasets.ImageFolder(folder, is_valid_file=is_image, allow_empty=True)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{folder} is not a folder of class folders of images: {reason}") from error
        for name in sorted(set(tree.classes) - {tree.classes[label] for label in tree.targets}):
            raise UserError(f"the class folder {folder / name} has no image ({formats})")
        if left_out:
            rank_zero_warn(
                f"{len(left_out):,} files of {folder} are left out, such as {left_out[0]}: images must be in"
                f" class folders and end in {formats}"
            )
        return tree
