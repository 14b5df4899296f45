"""What a run costs: parameters, FLOPs, activation memory, time per step."""

import copy
import time
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deq_collapse.models.module import CollapseModule


class Costs(Callback):
    """Times the training steps of every epoch and counts FLOPs and saved activations once."""

    def __init__(self) -> None:
        self.seconds_per_step_of_epoch: list[float] = []
        self.activation_bytes: int | None = None
        self._start = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the epoch's clock; before the very first batch, counts the activations it will save."""
        if self.activation_bytes is None and isinstance(pl_module, CollapseModule):
            self.activation_bytes = saved_activation_bytes(pl_module.network, batch[0])
        if batch_idx == 0:
            self._start = _now(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops the clock after the epoch's last batch, before anything is measured."""
        if batch_idx + 1 == trainer.num_training_batches:
            self.seconds_per_step_of_epoch.append((_now(pl_module.device) - self._start) / (batch_idx + 1))

    def seconds_per_step(self) -> float | None:
        """Median over epochs of the mean time of a training step, in seconds."""
        return median(self.seconds_per_step_of_epoch) if self.seconds_per_step_of_epoch else None

    def state_dict(self) -> dict[str, Any]:
        """Times so far, and the activation count."""
        return {"seconds": self.seconds_per_step_of_epoch, "activation_bytes": self.activation_bytes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.seconds_per_step_of_epoch = list(state_dict["seconds"])
        self.activation_bytes = state_dict["activation_bytes"]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def saved_activation_bytes(network: nn.Module, x: Tensor) -> int:
    """Bytes that one training-mode forward pass keeps for its backward pass, weights not counted.

    Args:
        network: left as it is; a copy runs.
        x: a training batch, (N, C, H, W).
    """
    network = copy.deepcopy(network).train()
    own = {p.untyped_storage().data_ptr() for p in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.random.fork_rng(devices=[x.device] if x.is_cuda else []),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        loss = network(x).sum()
        del loss
    return sum(kept.values())


@torch.no_grad()
def flops_per_image(network: nn.Module, x: Tensor) -> int:
    """Floating-point operations of one eval-mode forward pass, per image; a multiply-add counts as two.

    For an equilibrium this holds the evaluations its solver needs for these images, and the solver's own
    products.

    Args:
        network: returned to the mode it came in.
        x: images, (N, C, H, W).
    """
    training = network.training
    with FlopCounterMode(display=False) as counter:
        network.eval()(x)
    network.train(training)
    return int(counter.get_total_flops()) // len(x)
