"""Readouts: feature map -> features h, the classifier's input. ``torch.nn.Flatten`` is another one."""

from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models.cells.base import check_dropout


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


class PatchAverage(nn.Module):
    """The means over squares of a map, as one vector: ``(N, C, H, W)`` to ``(N, C (H // side) (W // side))``.

    Pixels that fill no square, at the end of rows and columns, are left out.

    Args:
        side: of a square in pixels.

    Raises:
        UserError: for a side out of range, and for anything but maps that have room for a square.
    """

    def __init__(self, side: int = 4) -> None:
        super().__init__()
        if side < 1:
            raise UserError(f"side is {side}, but a square has at least 1 pixel.")
        self.side = side

    def forward(self, z: Tensor) -> Tensor:
        """Features h."""
        if z.dim() != 4 or min(z.shape[2:]) < self.side:
            raise UserError(
                f"PatchAverage takes maps (N, C, H, W) of at least {self.side}x{self.side} pixels, but got"
                f" {_shape(z)}."
            )
        return F.avg_pool2d(z, self.side).flatten(1)


class ConvReadout(nn.Sequential):
    """An affine 3x3 convolution without padding and a leaky ReLU of slope 0.1 below 0, whole channels dropped
    in training, flattened: ``(N, C, H, W)`` to ``(N, width (H - 2) (W - 2))`` (Fung et al., "JFB:
    Jacobian-Free Backpropagation for Implicit Networks", AAAI 2022, on MNIST).

    Args:
        channels: C, of the feature map.
        width: channels of the convolution.
        dropout: probability with which a channel is dropped, at least 0 and below 1.

    Raises:
        UserError: for an argument out of range.
    """

    def __init__(self, channels: int, width: int = 16, dropout: float = 0.2) -> None:
        if min(channels, width) < 1:
            raise UserError(f"channels is {channels} and width {width}, but each is at least 1.")
        check_dropout(dropout)
        super().__init__(
            nn.Conv2d(channels, width, 3), nn.LeakyReLU(0.1), nn.Dropout2d(dropout), nn.Flatten()
        )


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
