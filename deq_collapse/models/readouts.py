"""Readouts: feature map -> features h, what the classifier receives. ``torch.nn.Flatten`` is another."""

from torch import Tensor, nn
from torch.nn import functional as F


class GlobalAverage(nn.Module):
    """The mean over the map: ``(N, C, H, W)`` to ``(N, C)``, as in residual networks; vectors stay as they
    are.
    """

    def forward(self, z: Tensor) -> Tensor:
        """Features h."""
        return z.flatten(2).mean(2) if z.dim() > 2 else z


class UnitLength(nn.Module):
    """Vectors of length 1 in the same direction; 0 stays 0."""

    def forward(self, h: Tensor) -> Tensor:
        """Shape ``(N, d)`` in and out."""
        return F.normalize(h)
