"""What monitoring adds to a Lightning validation epoch of a CIFAR ResNet-18 on 32 x 32 images.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_epoch.py
"""

import argparse
import logging
import time
import warnings
from statistics import median

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from deq_collapse.metrics import COSTLY, TABLE, NeuralCollapse

BATCH, LARGE = 128, 50_000
# CPU seconds of the one thread: other processes of the machine distort them less than the wall clock.
clock = time.process_time
WATCHED = {
    "nothing": [],
    "all": [name for name in TABLE if name not in COSTLY],
    "all but nc4": [name for name in TABLE if name not in {*COSTLY, "nc4"}],
}


class Watched(LightningModule):
    """A network whose validation epoch updates, computes and logs `metric`, and notes what that took."""

    def __init__(self, backbone: nn.Module, classifier: nn.Linear, metric: NeuralCollapse | None) -> None:
        super().__init__()
        self.backbone, self.classifier, self.metric = backbone, classifier, metric
        self.update_seconds = self.compute_seconds = 0.0

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        features = self.backbone(images)
        self.classifier(features)
        if self.metric is not None:
            start = clock()
            self.metric.update(features, labels, self.classifier.weight, self.classifier.bias)
            self.update_seconds += clock() - start

    def on_validation_epoch_end(self) -> None:
        if self.metric is not None:
            start = clock()
            self.log_dict(self.metric.compute())
            self.metric.reset()
            self.compute_seconds = clock() - start


def cifar_resnet18() -> nn.Module:
    """ResNet-18 up to its classifier, with a stem for 32 x 32 images: a 3 x 3 convolution, no pooling."""
    backbone = resnet18()
    backbone.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    backbone.maxpool = backbone.fc = nn.Identity()
    return backbone


def epoch(
    backbone: nn.Module, classifier: nn.Linear, names: list[str], loader: DataLoader
) -> tuple[float, float, float]:
    """CPU seconds of one validation epoch, of its updates, and of computing and logging."""
    metric = NeuralCollapse(*classifier.weight.shape, metrics=names) if names else None
    module = Watched(backbone, classifier, metric)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", devices=1, **quiet)
    start = clock()
    trainer.validate(module, loader, verbose=False)
    return clock() - start, module.update_seconds, module.compute_seconds


def on_many_features(classifier: nn.Linear, names: list[str]) -> float:
    """CPU seconds of updates and compute on `LARGE` made features, without a network."""
    num_classes, width = classifier.weight.shape
    metric, means = NeuralCollapse(num_classes, width, names), torch.randn(num_classes, width)
    took = 0.0
    for y in (torch.arange(LARGE) % num_classes).split(BATCH):
        h = means[y] + 0.5 * torch.randn(len(y), width)
        start = clock()
        metric.update(h, y, classifier.weight, classifier.bias)
        took += clock() - start
    start = clock()
    metric.compute()
    return took + clock() - start


def compare(num_classes: int, images: int, repeats: int) -> None:
    """Print one table: what is watched, against an epoch that watches nothing."""
    torch.manual_seed(0)
    backbone, classifier = cifar_resnet18(), nn.Linear(512, num_classes)
    data = TensorDataset(torch.randn(images, 3, 32, 32), torch.arange(images) % num_classes)
    loader = DataLoader(data, batch_size=BATCH)
    epoch(backbone, classifier, WATCHED["all"], DataLoader(TensorDataset(*data[:BATCH]), batch_size=BATCH))
    runs = []
    for _ in range(repeats):
        # Interleaved: a machine that slows down slows all of them.
        runs.append({name: epoch(backbone, classifier, names, loader) for name, names in WATCHED.items()})
    alone = median(run["nothing"][0] for run in runs)
    print(f"\nK={num_classes}, d=512, {images} images in batches of {BATCH}: ", end="")
    print(f"an epoch takes {alone:.2f} s, {1000 * alone / images:.2f} ms an image")
    print(f"{'watched':12} {'epoch':>7} {'update':>12} {'compute, log':>13} {'added':>7} {'of 50,000*':>11}")
    for name in list(WATCHED)[1:]:
        ratio = median(run[name][0] / run["nothing"][0] for run in runs)
        update, compute = (median(run[name][i] for run in runs) for i in (1, 2))
        large = on_many_features(classifier, WATCHED[name]) / (alone / images * LARGE)
        print(
            f"{name:12} {ratio:6.3f}x {1e6 * update / images:6.1f} us/im. {1000 * compute:10.1f} ms"
            f" {(update + compute) / alone:7.2%} {large:11.2%}",
            flush=True,
        )


def main() -> None:
    """Measure for 10 and for 100 classes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    for num_classes in (10, 100):
        compare(num_classes, arguments.images, arguments.repeats)
    print("\nepoch: relative to one that watches nothing. added: update, compute, log, measured inside it.")
    print("* extrapolated to 50,000 images: metric measured on as many made features, forward passes scaled.")


if __name__ == "__main__":
    main()
