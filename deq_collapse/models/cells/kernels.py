"""Kernels of convolutions, initialised as in the published DEQs, with optional weight normalisation, and
checks of the group normalisation between them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError

GROUPS, INIT_STD = 8, 0.01
"""Groups of a norm and standard deviation of initial weights, as MDEQ's authors chose them."""


class Kernel(nn.Module):
    """The kernel of a convolution without bias, drawn from N(0, std^2).

    Args:
        in_channels: of the input map.
        out_channels: of the output map.
        size: side of the kernel, odd.
        std: standard deviation of its initial entries, above 0.
        weight_norm: write it as ``g v / ||v||`` for each output channel, with learned g and v (Salimans &
            Kingma, "Weight Normalization", NeurIPS 2016); g starts at ``||v||``, so that the initial kernel
            is the same.
    """

    def __init__(
        self, in_channels: int, out_channels: int, size: int, std: float, weight_norm: bool = False
    ) -> None:
        super().__init__()
        draw = torch.empty(out_channels, in_channels, size, size).normal_(std=std)
        self.weight = nn.Parameter(draw)
        self.length = nn.Parameter(_lengths(draw)) if weight_norm else None

    def forward(self) -> Tensor:
        """The kernel, (C', C, k, k)."""
        if self.length is None:
            return self.weight
        return self.weight * (self.length / _lengths(self.weight))


def _lengths(kernel: Tensor) -> Tensor:
    """The length of each output channel's part, (C', 1, 1, 1)."""
    lengths: Tensor = torch.linalg.vector_norm(kernel, dim=(1, 2, 3), keepdim=True)
    return lengths


def conv(x: Tensor, kernel: Tensor) -> Tensor:
    """The convolution that keeps the size of a map, (N, C, H, W) to (N, C', H, W)."""
    return F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)


def check_groups(groups: int, channels: int) -> None:
    """Refuses an impossible number of groups.

    Raises:
        UserError: unless it divides the channels.
    """
    if groups < 1 or channels % groups:
        raise UserError(f"groups is {groups}, but the {channels} channels of H0 must be divisible by it.")


def check_std(std: float) -> None:
    """Refuses an impossible standard deviation of initial weights.

    Raises:
        UserError: unless it is above 0.
    """
    if not std > 0:
        raise UserError(f"init_std is {std}, but first weights are drawn with a deviation above 0.")


def largest_divisor(of: int, at_most: int) -> int:
    """The largest divisor of a number that does not exceed another.

    >>> largest_divisor(12, 8), largest_divisor(11, 8)
    (6, 1)
    """
    return next(divisor for divisor in range(min(of, at_most), 0, -1) if of % divisor == 0)
