"""Data sets that torchvision downloads and reads."""

import os
import tempfile
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError
from typing import Any, ClassVar

import torch
from filelock import FileLock
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor
from torchvision.datasets.utils import check_integrity, extract_archive

from deq_collapse.data.source import Source, Split
from deq_collapse.errors import UserError

# What torchvision lets through where a file, the network or the disk fails.
_FAILURES = (
    *(OSError, EOFError, HTTPException, TarError, zlib.error),
    *(RuntimeError, ValueError, TypeError, LookupError, AssertionError),
)


class TorchvisionSource(Source):
    """A data set of torchvision, under the folder `root`.

    Where all files lie there, nothing is written. Otherwise one process per machine unpacks or downloads them
    in a temporary folder inside `root`, and moves them to their place only once they are whole.

    Args:
        root: the folder that holds one folder per data set, as torchvision lays them out.
    """

    dataset: ClassVar[Any]
    # A folder of the operating system that may already hold the archives.
    system_folder: ClassVar[Path | None] = None

    def __init__(self, root: str | os.PathLike[str] = "data") -> None:
        self.root = Path(root)

    @property
    @abstractmethod
    def files(self) -> Mapping[str, str | None]:
        """The files that torchvision reads, relative to `root`, and their MD5 sums where known."""

    @property
    @abstractmethod
    def archives(self) -> Mapping[str, str | None]:
        """What they are unpacked from, relative to `root`, and the MD5 sums a local copy must have."""

    @property
    def class_names(self) -> Sequence[str]:
        """As torchvision names them."""
        return tuple(self.dataset.classes)

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, C, H, W) and labels (N,), fetched first where they are missing."""
        data = self._open(split)
        images = torch.as_tensor(data.data)
        images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        return images, torch.as_tensor(data.targets)

    def _open(self, split: Split) -> Any:
        if missing := self._missing():
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                with FileLock(self.root / f".{self.name}.lock"):
                    if self._missing():
                        self._fetch()
            except UserError:
                raise
            except _FAILURES as error:
                raise UserError(
                    f"{self.name} has no {missing[0]} in {self.root}, and it cannot be fetched:"
                    f" {' '.join(str(error).split())}"
                ) from error
        try:
            return self.dataset(self.root, train=split == "train")
        except _FAILURES as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise UserError(f"{self.name} cannot be read from {self.root}: {error}") from error
            damaged = (self.root / name for name in self.files if self._damaged(self.root, name))
            raise _damage(next(damaged, self.root)) from error

    def _missing(self) -> list[str]:
        return [name for name in self.files if not (self.root / name).is_file()]

    def _damaged(self, root: Path, name: str) -> bool:
        return not check_integrity(root / name, self.files[name])

    def _fetch(self) -> None:
        with tempfile.TemporaryDirectory(dir=self.root, prefix=f".{self.name}-") as temporary:
            for name, md5 in self.archives.items():
                places = [self.root / name]
                if self.system_folder is not None:
                    places.append(self.system_folder / Path(name).name)
                if local := next((place for place in places if place.is_file()), None):
                    self._unpack(local, md5, (Path(temporary) / name).parent)
            # Downloads what is still missing, and checks it.
            self.dataset(temporary, download=True)
            for name in self.files:
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(temporary) / name).replace(self.root / name)

    def _unpack(self, archive: Path, md5: str | None, folder: Path) -> None:
        if not check_integrity(archive, md5):
            raise _damage(archive)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            extract_archive(archive, folder)
        except OSError as error:
            # Such an error has a number where the disk failed, and none where gzip found a wrong checksum.
            if error.errno is not None:
                raise
            raise _damage(archive) from error
        except _FAILURES as error:
            raise _damage(archive) from error


def _damage(path: Path) -> UserError:
    return UserError(f"{path} is truncated or altered: delete it to have it fetched anew, or replace it")


class _IdxSource(TorchvisionSource):
    @property
    def archives(self) -> Mapping[str, str | None]:
        """Four compressed idx files; gzip's own checksum guards them, as distributions compress them anew."""
        return {f"{self.dataset.__name__}/raw/{name}": None for name, _ in self.dataset.resources}

    @property
    def files(self) -> Mapping[str, str | None]:
        """The four idx files; no sum is published of them, but their headers state their sizes."""
        return {name.removesuffix(".gz"): None for name in self.archives}

    def _unpack(self, archive: Path, md5: str | None, folder: Path) -> None:
        super()._unpack(archive, md5, folder)
        if self._damaged(folder, archive.stem):
            raise _damage(archive)

    def _damaged(self, root: Path, name: str) -> bool:
        try:
            read_sn3_pascalvincent_tensor(str(root / name))
        except _FAILURES:
            return True
        return False


class MNIST(_IdxSource):
    """Handwritten digits (LeCun et al. 1998): 60,000 + 10,000 grey images of 28 x 28."""

    name = "mnist"
    dataset = datasets.MNIST


class FashionMNIST(_IdxSource):
    """Zalando's articles of clothing (Xiao et al. 2017): 60,000 + 10,000 grey images of 28 x 28.

    Taken from Debian's package `dataset-fashion-mnist` where that is installed.
    """

    name = "fashion_mnist"
    dataset = datasets.FashionMNIST
    system_folder = Path("/usr/share/datasets/fashion-mnist")


class KMNIST(_IdxSource):
    """Kuzushiji, cursive Japanese letters (Clanuwat et al. 2018): 60,000 + 10,000 grey images of 28 x 28."""

    name = "kmnist"
    dataset = datasets.KMNIST


class CIFAR10(TorchvisionSource):
    """Small photographs in 10 classes (Krizhevsky 2009): 50,000 + 10,000 colour images of 32 x 32."""

    name = "cifar10"
    dataset = datasets.CIFAR10

    @property
    def archives(self) -> Mapping[str, str | None]:
        """One tar file."""
        return {self.dataset.filename: self.dataset.tgz_md5}

    @property
    def files(self) -> Mapping[str, str | None]:
        """The pickled batches and the class names."""
        data = self.dataset
        listed = [*data.train_list, *data.test_list, (data.meta["filename"], data.meta["md5"])]
        return {f"{data.base_folder}/{name}": md5 for name, md5 in listed}

    @cached_property
    def class_names(self) -> Sequence[str]:
        """As the data set's own file names them."""
        return tuple(self._open("test").classes)


class CIFAR100(CIFAR10):
    """Small photographs in 100 classes (Krizhevsky 2009): 50,000 + 10,000 colour images of 32 x 32."""

    name = "cifar100"
    dataset = datasets.CIFAR100
