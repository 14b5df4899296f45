"""Data sets, imbalance, augmentation, and the data module that batches them."""

from deq_collapse.data.augment import Augmentation, CropFlip, Cutout
from deq_collapse.data.digits import Digits
from deq_collapse.data.gaussian import GaussianMixture
from deq_collapse.data.image_files import ImageFiles
from deq_collapse.data.image_folder import ImageFolder
from deq_collapse.data.image_set import ImageSet
from deq_collapse.data.imbalance import Balanced, Counts, Imbalance, Natural, select
from deq_collapse.data.long_tailed import LongTailed, ParetoTailed
from deq_collapse.data.manifest import Replay
from deq_collapse.data.module import CollapseDataModule
from deq_collapse.data.published import CIFAR10, CIFAR100, KMNIST, MNIST, STL10, SVHN, FashionMNIST
from deq_collapse.data.sampler import Resampled, Sampler, Shuffled
from deq_collapse.data.source import Source
from deq_collapse.data.step import Step
from deq_collapse.data.tensor_file import TensorFile

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "KMNIST",
    "MNIST",
    "STL10",
    "SVHN",
    "Augmentation",
    "Balanced",
    "CollapseDataModule",
    "Counts",
    "CropFlip",
    "Cutout",
    "Digits",
    "FashionMNIST",
    "GaussianMixture",
    "ImageFiles",
    "ImageFolder",
    "ImageSet",
    "Imbalance",
    "LongTailed",
    "Natural",
    "ParetoTailed",
    "Replay",
    "Resampled",
    "Sampler",
    "Shuffled",
    "Source",
    "Step",
    "TensorFile",
    "select",
]
