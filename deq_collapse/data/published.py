"""The published data sets; torchvision knows their addresses and how to read them."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

from deq_collapse.data.downloaded import DAMAGE, Archive, DownloadedSource
from deq_collapse.data.source import Split


class _IdxSource(DownloadedSource):
    dataset: ClassVar[Any]

    @property
    def archives(self) -> Mapping[str, Archive]:
        """Four compressed idx files; no checksums of their contents are published."""
        archives = {}
        for name, md5 in self.dataset.resources:
            path = f"{self.dataset.__name__}/raw/{name}"
            addresses = tuple(mirror + name for mirror in self.dataset.mirrors)
            archives[path] = Archive({path.removesuffix(".gz"): None}, addresses, md5, exact=False)
        return archives

    @property
    def class_names(self) -> Sequence[str]:
        """As torchvision names them."""
        return tuple(self.dataset.classes)

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, 1, 28, 28) and labels (N,)."""
        data = self.dataset(self.root, train=split == "train")
        return data.data.unsqueeze(1), data.targets

    def intact(self, root: Path, name: str) -> bool:
        """Whether the file has the size that its header states."""
        try:
            read_sn3_pascalvincent_tensor(str(root / name))
        except DAMAGE:
            return False
        return True


class MNIST(_IdxSource):
    """Handwritten digits (LeCun et al. 1998): 60,000 + 10,000 grey images of 28 x 28."""

    name = "mnist"
    dataset = datasets.MNIST


class FashionMNIST(_IdxSource):
    """Zalando's articles of clothing (Xiao et al. 2017): 60,000 + 10,000 grey images of 28 x 28.

    Taken from Debian's package `dataset-fashion-mnist` if it is installed.
    """

    name = "fashion_mnist"
    dataset = datasets.FashionMNIST
    system_folder = Path("/usr/share/datasets/fashion-mnist")


class KMNIST(_IdxSource):
    """Kuzushiji, cursive Japanese letters (Clanuwat et al. 2018): 60,000 + 10,000 grey images of 28 x 28."""

    name = "kmnist"
    dataset = datasets.KMNIST


class CIFAR10(DownloadedSource):
    """Small photographs in 10 classes (Krizhevsky 2009): 50,000 + 10,000 colour images of 32 x 32."""

    name = "cifar10"
    dataset: ClassVar[Any] = datasets.CIFAR10

    @property
    def archives(self) -> Mapping[str, Archive]:
        """One tar file with the pickled batches and the class names."""
        data = self.dataset
        listed = [*data.train_list, *data.test_list, (data.meta["filename"], data.meta["md5"])]
        files = {f"{data.base_folder}/{name}": md5 for name, md5 in listed}
        return {data.filename: Archive(files, (data.url,), data.tgz_md5)}

    @cached_property
    def class_names(self) -> Sequence[str]:
        """As the data set's own file names them."""
        self.fetch()
        with self.reading():
            return tuple(self.dataset(self.root, train=False).classes)

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, 3, 32, 32) and labels (N,)."""
        data = self.dataset(self.root, train=split == "train")
        return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


class CIFAR100(CIFAR10):
    """Small photographs in 100 classes (Krizhevsky 2009): 50,000 + 10,000 colour images of 32 x 32."""

    name = "cifar100"
    dataset = datasets.CIFAR100


class SVHN(DownloadedSource):
    """Street View house numbers, cropped digits (Netzer et al. 2011): 73,257 + 26,032 colour images of
    32 x 32. Its classes differ in size: 13,861 training images show a 1, 4,659 a 9.
    """

    name = "svhn"
    class_names = tuple("0123456789")
    dataset: ClassVar[Any] = datasets.SVHN

    @property
    def archives(self) -> Mapping[str, Archive]:
        """Two MATLAB files, read without unpacking."""
        listed = (self.dataset.split_list[split] for split in ("train", "test"))
        return {name: Archive({name: md5}, (address,), md5) for address, name, md5 in listed}

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, 3, 32, 32) and labels (N,)."""
        data = self.dataset(self.root, split=split)
        return torch.from_numpy(data.data).contiguous(), torch.from_numpy(data.labels)


class _LabelledSTL10(datasets.STL10):  # type: ignore[misc]
    # torchvision would also require the 100,000 images without labels, which take 2.8 GB.
    train_list = datasets.STL10.train_list[:2]


class STL10(DownloadedSource):
    """Photographs in 10 classes (Coates et al. 2011): its 5,000 + 8,000 labelled colour images of 96 x 96."""

    name = "stl10"
    class_names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    dataset: ClassVar[Any] = _LabelledSTL10

    @property
    def archives(self) -> Mapping[str, Archive]:
        """One tar file of flat arrays."""
        data = self.dataset
        files = {f"{data.base_folder}/{name}": md5 for name, md5 in [*data.train_list, *data.test_list]}
        return {data.filename: Archive(files, (data.url,), data.tgz_md5)}

    def read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images uint8 (N, 3, 96, 96) and labels (N,)."""
        data = self.dataset(self.root, split=split)
        return torch.from_numpy(data.data).contiguous(), torch.from_numpy(data.labels).long()
