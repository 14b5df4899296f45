"""Batch normalisation over the batches of all ranks, on CPUs as well: with one global batch, a run on several
ranks trains as the run on one does.
"""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn


class BatchNormOverRanks(nn.SyncBatchNorm):
    """torch's own on a GPU, which is all that it runs on; on a CPU the same, by two sums over ranks."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalises ``(N, C, ...)``; in eval mode, or alone, as any batch normalisation does."""
        alone = not dist.is_initialized() or dist.get_world_size() == 1
        if input.device.type != "cpu" or not self.training or alone:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1, *(1 for _ in axes[1:])]
        count = torch.tensor([float(input.numel() // input.shape[1])])
        sums: Tensor = _SumOverRanks.apply(torch.cat([input.sum(axes), count.to(input)]))  # type: ignore[no-untyped-call]
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = input - mean.view(shape)
        squares: Tensor = _SumOverRanks.apply(centred.square().sum(axes))  # type: ignore[no-untyped-call]
        variance = squares / count
        if self.track_running_stats:
            self._follow(mean.detach(), variance.detach() * count / (count - 1))
        normed = centred * (variance + self.eps).rsqrt().view(shape)
        return normed * self.weight.view(shape) + self.bias.view(shape) if self.affine else normed

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics."""
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _SumOverRanks(torch.autograd.Function):
    """The sum, whose derivative is that of what all ranks make of it."""

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
    """What ``trainer.sync_batchnorm`` does to a model."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Makes every batch normalisation one over ranks, with its own weights and statistics."""
        model = super().apply(model)
        for module in model.modules():
            if type(module) is nn.SyncBatchNorm:
                module.__class__ = BatchNormOverRanks  # it has nothing that torch's has not
        return model
