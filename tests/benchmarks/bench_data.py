"""Training batches cut in memory beside a DataLoader with 2 workers, on images of CIFAR's shape, with the
usual crop and flip.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_data.py
"""

import argparse
import time
from collections.abc import Callable, Iterable
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.transforms import v2

from deq_collapse.data import Balanced, CollapseDataModule, CropFlip, Cutout, Source
from deq_collapse.models import (
    ConvCell,
    ConvEncoder,
    Equilibrium,
    Explicit,
    GlobalAverage,
    MLPCell,
    Network,
    VectorEncoder,
)

BATCH, WORKERS, CLASSES = 128, 2, 10
# The wall clock, as workers are processes of their own: the fastest of some epochs in turn, since whatever
# else the machine does only slows them down.
clock = time.perf_counter
MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


class Noise(Source):
    """Images of CIFAR's shape."""

    def __init__(self, count: int) -> None:
        self.count = count

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        """Noise (N, 3, 32, 32)."""
        images = torch.randint(256, (self.count, 3, 32, 32), dtype=torch.uint8)
        return images, torch.arange(self.count) % CLASSES


class PerImage(Dataset[tuple[Tensor, int]]):
    """One image after the other through a transform, as torchvision's CIFAR10 gives them."""

    def __init__(self, images: list[object], labels: Tensor, transform: Callable[[object], Tensor]) -> None:
        self.images, self.labels, self.transform = images, labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def loaders(count: int) -> dict[str, Iterable[tuple[Tensor, Tensor]]]:
    """The ways to one epoch, ours first."""
    source = Noise(count)
    crop_flip = CropFlip(padding=4)
    variants = {"ours": crop_flip, "ours, with cutout": [crop_flip, Cutout(16)]}
    ours = {
        name: CollapseDataModule(source, Balanced(), BATCH, augment=augment).train_dataloader()
        for name, augment in variants.items()
    }
    images, labels = source.train
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    shape = {"padding": 4}
    pillow = [v1.RandomCrop(32, **shape), v1.RandomHorizontalFlip(), v1.ToTensor(), v1.Normalize(MEAN, STD)]
    tensor = [v2.RandomCrop(32, **shape), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
    theirs = {
        "DataLoader, Pillow": PerImage([Image.fromarray(p) for p in pixels], labels, v1.Compose(pillow)),
        "DataLoader, tensors": PerImage(list(images), labels, v2.Compose([*tensor, v2.Normalize(MEAN, STD)])),
    }
    options = {"batch_size": BATCH, "shuffle": True, "num_workers": WORKERS, "persistent_workers": True}
    return ours | {name: DataLoader(data, **options) for name, data in theirs.items()}


def epoch(loader: Iterable[tuple[Tensor, Tensor]]) -> list[float]:
    """Seconds that each batch of an epoch was waited for."""
    seconds, start = [], clock()
    for _ in loader:
        seconds.append(clock() - start)
        start = clock()
    return seconds


def models() -> dict[str, Network]:
    """The smallest network of images in conf/model, and the smallest of all, on images of CIFAR's shape."""
    shape = ((3, 32, 32), CLASSES)
    block = partial(ConvCell, lipschitz=None)
    encoder = partial(ConvEncoder, width=48, depth=3)
    cell = partial(MLPCell, lipschitz=0.9)
    vectors = (partial(VectorEncoder, width=128), partial(Equilibrium, cell=cell), nn.Identity(), nn.Linear)
    return {
        "explicit.yaml": Network(*shape, encoder, partial(Explicit, block=block), GlobalAverage(), nn.Linear),
        "equilibrium_mlp.yaml": Network(*shape, *vectors),
    }


def fastest_step(network: Network, steps: int) -> float:
    """Seconds of the fastest of some training steps."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % CLASSES

    def step() -> float:
        start = clock()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
        return clock() - start

    return min(step() for _ in range(steps))


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ways = loaders(arguments.images)
    epochs: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(arguments.repeats + 1):  # the first starts the workers
        for name, loader in ways.items():
            epochs[name].append(epoch(loader))
    print(
        f"{arguments.images:,} images (3, 32, 32) in batches of {BATCH}; {WORKERS} workers; one thread each\n"
    )
    seconds = {name: min(map(sum, of_epoch)) for name, of_epoch in epochs.items()}
    print(f"{'':20} {'images/s':>10} {'ms/batch':>9} {'ours is faster':>15}")
    for name, taken in seconds.items():
        ratio = "" if name.startswith("ours") else f"{taken / seconds['ours']:.1f}x"
        batch = 1000 * taken / len(epochs[name][0])
        print(f"{name:20} {arguments.images / taken:10,.0f} {batch:9.2f} {ratio:>15}")
    batch = min(min(of_epoch[:-1]) for of_epoch in epochs["ours"])  # the last may be smaller
    print(f"\nour fastest batch takes {1000 * batch:.2f} ms; a training step on one takes at least")
    for name, network in models().items():
        step = fastest_step(network, 20)
        print(f"{1000 * step:6.1f} ms with conf/model/{name}: the batch is {batch / step:.1%} of it")


if __name__ == "__main__":
    main()
