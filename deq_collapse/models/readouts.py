"""Readouts: feature map -> features h, what the classifier receives. ``torch.nn.Flatten`` is another."""

from torch import Tensor, nn


class GlobalAverage(nn.Module):
    """The mean over the map: ``(N, C, H, W)`` to ``(N, C)``, as in residual networks."""

    def forward(self, z: Tensor) -> Tensor:
        """Features h."""
        return z.mean(dim=(2, 3))
