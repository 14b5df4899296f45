"""Readouts: feature map -> features h, the classifier's input. ``torch.nn.Flatten`` is another one."""

from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError


class GlobalAverage(nn.Module):
    """The mean over the map: ``(N, C, H, W)`` to ``(N, C)``, as in residual networks; vectors are unchanged.

    Raises:
        UserError: for tokens, whose entries it would mix.
    """

    def forward(self, z: Tensor) -> Tensor:
        """Features h."""
        if z.dim() == 3:
            raise UserError(
                f"GlobalAverage takes maps (N, C, H, W) or vectors (N, d), but {_shape(z)} are tokens"
                " (N, L, D): their readout is TokenAverage."
            )
        return z.flatten(2).mean(2) if z.dim() > 2 else z


class TokenAverage(nn.Module):
    """The mean over the tokens: ``(N, L, D)`` to ``(N, D)``.

    Raises:
        UserError: for anything but tokens.
    """

    def forward(self, z: Tensor) -> Tensor:
        """Features h."""
        if z.dim() != 3:
            raise UserError(
                f"TokenAverage takes tokens (N, L, D), but got {_shape(z)}: maps are read out by"
                " GlobalAverage."
            )
        return z.mean(1)


class UnitLength(nn.Module):
    """Scales vectors to length 1; 0 stays 0."""

    def forward(self, h: Tensor) -> Tensor:
        """Shape ``(N, d)`` in and out."""
        return F.normalize(h)


def _shape(z: Tensor) -> str:
    return f"(N, {', '.join(map(str, z.shape[1:]))})"
