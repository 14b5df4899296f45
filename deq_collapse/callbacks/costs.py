"""Costs of a run: parameters, FLOPs, activation memory, time per step."""

import copy
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deq_collapse.data import CollapseDataModule
from deq_collapse.metrics.modes import evaluating
from deq_collapse.models.module import CollapseModule

TOTAL = "total"


class Costs(Callback):
    """Times the steps of the optimizer in every whole epoch, and counts saved activations once, as the first
    batch saves them: in the run's precision, with the copies of weights that mixed precision makes, and
    without what a schedule adds later, such as a Jacobian term whose weight is 0 at first.
    """

    def __init__(self) -> None:
        self.seconds_per_step_of_epoch: list[float] = []
        self.activation_bytes: int | None = None
        self._start: float | None = None
        self._first_step, self._paused = 0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops a clock of an earlier fit: an epoch that a run resumes in is not timed."""
        self._start = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the epoch's clock; before the very first batch, counts the activations that it will save."""
        if self.activation_bytes is None and isinstance(pl_module, CollapseModule):
            with trainer.precision_plugin.forward_context():
                self.activation_bytes = saved_activation_bytes(pl_module.network, batch[0])
        if batch_idx == 0:
            self._start, self._first_step = _now(pl_module.device), trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops the clock after the last batch of a whole epoch, before measurements."""
        if batch_idx + 1 == trainer.num_training_batches and self._start is not None:
            steps = max(trainer.global_step - self._first_step, 1)
            self.seconds_per_step_of_epoch.append((_now(pl_module.device) - self._start) / steps)
            self._start = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock for a measurement during an epoch."""
        self._paused = _now(pl_module.device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continues the clock."""
        if self._start is not None:
            self._start += _now(pl_module.device) - self._paused

    def seconds_per_step(self) -> float | None:
        """Median over whole epochs of the mean time of an optimizer's step, in seconds."""
        return median(self.seconds_per_step_of_epoch) if self.seconds_per_step_of_epoch else None

    def state_dict(self) -> dict[str, Any]:
        """The times so far and the activation count."""
        return {"seconds": self.seconds_per_step_of_epoch, "activation_bytes": self.activation_bytes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a checkpoint."""
        self.seconds_per_step_of_epoch = list(state_dict["seconds"])
        self.activation_bytes = state_dict["activation_bytes"]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def cost_images(data: CollapseDataModule, device: torch.device) -> Tensor:
    """The images for counting FLOPs: up to 64, evenly spread over the test split, which may be sorted by
    class; (n, C, H, W).
    """
    test = data.source.test
    return data.normalise(test.images[spread(len(test.labels), 64)]).to(device)


def spread(count: int, most: int) -> Tensor:
    """Positions of at most `most` samples that represent all `count`, evenly spread, int64."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float32).round().long()


def saved_activation_bytes(network: nn.Module, x: Tensor) -> int:
    """Bytes that one forward pass saves for its backward pass, without weights.

    Args:
        network: in the mode in which it trains, as frozen parts of it are in eval mode; unchanged, for a copy
            runs.
        x: a training batch, (N, C, H, W).
    """
    return saved_by_part({"network": network}, x)[TOTAL]


def saved_by_part(parts: Mapping[str, nn.Module], x: Tensor) -> dict[str, int]:
    """The bytes of :func:`saved_activation_bytes` by the part that saves them, and their total.

    Tensors saved by two parts count for the first.

    Args:
        parts: by name, in the order in which ``x`` passes through them; unchanged.
        x: a training batch, (N, C, H, W).
    """
    parts = copy.deepcopy(dict(parts))
    weights = [tensor for part in parts.values() for tensor in (*part.parameters(), *part.buffers())]
    own = {tensor.untyped_storage().data_ptr() for tensor in weights}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    counts: dict[str, int] = {}
    with (
        torch.random.fork_rng(devices=[x.device] if x.is_cuda else []),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        for name, part in parts.items():
            x = part(x)
            counts[name] = sum(kept.values()) - sum(counts.values())
    return counts | {TOTAL: sum(counts.values())}


def saved_per_image(parts: Mapping[str, nn.Module], x: Tensor) -> tuple[dict[str, int], dict[str, int]]:
    """The bytes of :func:`saved_by_part` as a linear function of the batch size, found from up to four
    images, so that a small machine can estimate a training step that needs a large one.

    Args:
        parts: by name, in the order in which ``x`` passes through them; unchanged.
        x: images, (N, C, H, W).

    Returns:
        The bytes that each image adds, and those saved for any number of images, such as a cell's scaled
        weights.
    """
    two, four = (saved_by_part(parts, x[torch.arange(n) % len(x)]) for n in (2, 4))
    slope = {name: (four[name] - two[name]) // 2 for name in two}
    return slope, {name: two[name] - 2 * slope[name] for name in two}


def flops_per_image(network: nn.Module, x: Tensor) -> int:
    """Floating-point operations of one eval-mode forward pass, per image; a multiply-add counts as two.

    It counts convolutions and matrix products, including those of attention. For an equilibrium it includes
    the evaluations that its solver needs for these images, and the solver's own products.

    Args:
        network: its mode is restored.
        x: images, (N, C, H, W).
    """
    return flops_by_part({"network": network}, x)[TOTAL]


@torch.no_grad()
def flops_by_part(parts: Mapping[str, nn.Module], x: Tensor) -> dict[str, int]:
    """The operations of :func:`flops_per_image` by part, and their total.

    Args:
        parts: by name, in the order in which ``x`` passes through them; returned to the mode they came in.
        x: images, (N, C, H, W).
    """
    images, counts = len(x), {}
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see fused attention
    try:
        for name, part in parts.items():
            with evaluating(part):
                part(x[:1])  # leaves out what is computed once for the weights
                # The counter does not see inside compiled modules.
                eager = torch.compiler.set_stance("force_eager")
                with eager, FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
                    x = part(x)
            counts[name] = int(counter.get_total_flops())
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return {name: count // images for name, count in (counts | {TOTAL: sum(counts.values())}).items()}
