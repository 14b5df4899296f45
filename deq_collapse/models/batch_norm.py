"""Batch normalisation over the batches of all ranks, on CPUs as well: with the same global batch, a run on
several ranks trains like a run on one.
"""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNormOverRanks(_BatchNorm):
    """Takes statistics of the global batch by two sums over ranks; torch's own does so only on a GPU."""

    def _check_input_dim(self, input: Tensor) -> None:
        """The layers it replaces take 2 to 5 dimensions; this one takes any number."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalises ``(N, C, ...)``, in float32 or better; in eval mode or on a single rank, as any batch
        normalisation does.
        """
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        dtype = input.dtype
        input = input.to(torch.promote_types(dtype, torch.float32))
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1, *(1 for _ in axes[1:])]
        count = torch.tensor([float(input.numel() // input.shape[1])])
        sums: Tensor = _SumOverRanks.apply(torch.cat([input.sum(axes), count.to(input)]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = input - mean.view(shape)
        squares: Tensor = _SumOverRanks.apply(centred.square().sum(axes))
        variance = squares / count
        if self.track_running_stats:
            self._follow(mean.detach(), variance.detach() * count / (count - 1))
        normed = centred * (variance + self.eps).rsqrt().view(shape)
        normed = normed * self.weight.view(shape) + self.bias.view(shape) if self.affine else normed
        return normed.to(dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Updates the running statistics."""
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _SumOverRanks(torch.autograd.Function):
    """The sum over ranks; its derivative sums the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SynchronisedBatchNorm(TorchSyncBatchNorm):
    """What ``trainer.sync_batchnorm`` applies to a model: torch's own layers under NCCL, ours under gloo."""

    def __init__(self) -> None:
        self._before: list[tuple[nn.Module, type[nn.Module]]] = []

    def apply(self, model: nn.Module) -> nn.Module:
        """Turns every batch normalisation into one over ranks that keeps its weights and statistics."""
        if dist.get_backend() != "gloo":  # the model moves to its device only later
            return super().apply(model)
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                self._before.append((module, type(module)))
                module.__class__ = BatchNormOverRanks  # it adds no attributes
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Restores the original layers."""
        if not self._before:
            return super().revert(model)
        for module, kind in self._before:
            module.__class__ = kind
        self._before = []
        return model
