"""Quantiles over the samples of all ranks."""

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors


def of_all_ranks(trainer: Trainer, values: Tensor) -> Tensor:
    """The values (N,) of all ranks, because quantiles do not add up."""
    return torch.cat(gather_all_tensors(values)) if trainer.world_size > 1 else values


def quantile(values: Tensor, share: float) -> Tensor:
    """The smallest value such that at least this share of all values does not exceed it."""
    return values.kthvalue(max(1, -int(-share * len(values) // 1))).values
