"""Any tree of images in class folders, read into memory."""

import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.functional import pil_to_tensor

from deq_collapse.data.source import Source, Split
from deq_collapse.errors import UserError


class ImageFolder(Source):
    """The images of `root`/train/CLASS/ and `root`/test/CLASS/, in the formats of torchvision's ImageFolder.

    All are of one size, and read as RGB. The classes are the folders of `root`/train in alphabetic order.

    Args:
        root: the folder that holds train/ and test/.
        name: what results and manifests call the data set.
    """

    name = "image_folder"

    def __init__(self, root: str | os.PathLike[str], name: str = "image_folder") -> None:
        self.root = Path(root)
        self.name = name

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the class folders."""
        return tuple(self._tree("train").classes)

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, 3, H, W) and labels (N,), in alphabetic order of class and file."""
        tree = self._tree(split)
        if split == "test" and tuple(tree.classes) != self.class_names:
            differing = sorted(set(tree.classes) ^ set(self.class_names))
            raise UserError(f"the train and test folders of {self.root} differ in the class {differing[0]}")
        first = _read(tree.samples[0][0])
        images = torch.empty(len(tree.samples), *first.shape, dtype=torch.uint8)
        for i, (path, _) in enumerate(tree.samples):
            image = _read(path)
            if image.shape != first.shape:
                sizes = [" x ".join(map(str, shape[1:])) for shape in (image.shape, first.shape)]
                raise UserError(f"{path} is {sizes[0]} pixels, but the images before it are {sizes[1]}")
            images[i] = image
        return images, torch.tensor(tree.targets)

    def _tree(self, split: Split) -> datasets.ImageFolder:
        try:
            return datasets.ImageFolder(self.root / split)
        except OSError as error:
            raise UserError(
                f"{self.root / split} is not a folder of class folders of images: {error}"
            ) from error


def _read(path: str) -> Tensor:
    try:
        with Image.open(path) as image:
            tensor: Tensor = pil_to_tensor(image.convert("RGB"))
            return tensor
    # Pillow's decoders let through whatever they stumble on: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise UserError(f"the image {path} cannot be decoded: {error}") from error
