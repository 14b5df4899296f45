"""Data sets, imbalance, augmentation, and the data module that batches them."""

from deq_collapse.data.augment import Augmentation, CropFlip
from deq_collapse.data.digits import Digits
from deq_collapse.data.downloaded import CIFAR10, CIFAR100, KMNIST, MNIST, FashionMNIST
from deq_collapse.data.image_folder import ImageFolder
from deq_collapse.data.imbalance import Balanced, Imbalance, LongTailed, Step, select
from deq_collapse.data.module import CollapseDataModule
from deq_collapse.data.source import ImageSet, Source

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "KMNIST",
    "MNIST",
    "Augmentation",
    "Balanced",
    "CollapseDataModule",
    "CropFlip",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "ImageSet",
    "Imbalance",
    "LongTailed",
    "Source",
    "Step",
    "select",
]
