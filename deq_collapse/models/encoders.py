"""Encoders: image x -> H0, the same for the explicit and the equilibrium branch."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from deq_collapse.errors import UserError
from deq_collapse.models.cells import Shape


class ConvEncoder(nn.Sequential):
    """3x3 convolutions with batch normalisation and ReLU; every layer after the first halves the map.

    Maps ``(N, C, H, W)`` to ``(N, width, ceil(H / s), ceil(W / s))`` with ``s = stem_stride
    stride^(depth-1)``.

    Args:
        image_shape: channels, height and width of an image.
        width: channels of H0.
        depth: number of convolutions, at least 1.
        stem_stride: stride of the first one.
        stride: of the others; ``None`` for 2.

    Raises:
        UserError: for an argument out of range.
    """

    def __init__(
        self,
        image_shape: Shape,
        width: int = 64,
        depth: int = 3,
        stem_stride: int = 1,
        stride: int | None = None,
    ) -> None:
        later = 2 if stride is None else stride
        if min(width, depth, stem_stride, later) < 1:
            raise UserError(
                f"width {width}, depth {depth}, stem_stride {stem_stride}, stride {later}: each is at least"
                " 1."
            )
        channels = [image_shape[0]] + [width] * depth
        layers: list[nn.Module] = []
        for layer, (c_in, c_out) in enumerate(pairwise(channels)):
            step = stem_stride if layer == 0 else later
            layers += [
                nn.Conv2d(c_in, c_out, 3, stride=step, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(),
            ]
        super().__init__(*layers)


class VectorEncoder(nn.Sequential):
    """A matrix on the pixels, batch normalisation and ReLU: images ``(N, C, H, W)`` to ``(N, width)``.

    Args:
        image_shape: channels, height and width of an image.
        width: length of H0.
    """

    def __init__(self, image_shape: Shape, width: int = 64) -> None:
        super().__init__(
            nn.Flatten(), _of_pixels(image_shape, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()
        )


class LinearEncoder(nn.Sequential):
    """One affine map of the pixels and nothing else: images ``(N, C, H, W)`` to ``(N, width)``.

    The injection ``U x + b`` of a DEQ on vectors, whose cell applies the nonlinearity (Winston & Kolter,
    "Monotone Operator Equilibrium Networks", NeurIPS 2020).

    Args:
        image_shape: channels, height and width of an image.
        width: length of H0.
    """

    def __init__(self, image_shape: Shape, width: int = 64) -> None:
        super().__init__(nn.Flatten(), _of_pixels(image_shape, width))


class CircularEncoder(nn.Sequential):
    """One affine 3x3 convolution, circular on the image with a border of zeros, and nothing else.

    Maps ``(N, C, H, W)`` to ``(N, width, H + 2 border, W + 2 border)``. The injection ``U x + b`` of a DEQ on
    maps, whose cell applies the nonlinearity (Winston & Kolter, "Monotone Operator Equilibrium Networks",
    NeurIPS 2020).

    Args:
        image_shape: channels, height and width of an image.
        width: channels of H0.
        border: pixels added on each side.
    """

    def __init__(self, image_shape: Shape, width: int = 64, border: int = 1) -> None:
        if width < 1 or border < 0:
            raise UserError(f"width is {width}, at least 1, and border {border}, at least 0.")
        convolution = nn.Conv2d(image_shape[0], width, 3, padding=1, padding_mode="circular")
        super().__init__(nn.ZeroPad2d(border), convolution)


class PooledEncoder(nn.Sequential):
    """Affine 3x3 convolutions, each with batch norm and a leaky ReLU of slope 0.1 below 0, and max pooling
    after the first (Fung et al., "JFB: Jacobian-Free Backpropagation for Implicit Networks", AAAI 2022, on
    MNIST).

    Maps ``(N, C, H, W)`` to ``(N, widths[-1], H // pool, W // pool)``.

    Args:
        image_shape: channels, height and width of an image.
        widths: channels of each convolution, at least one.
        pool: side of the squares whose largest number is kept; no larger than an image.

    Raises:
        UserError: for an argument out of range.
    """

    def __init__(self, image_shape: Shape, widths: tuple[int, ...] = (16, 32), pool: int = 3) -> None:
        if not widths or min(widths) < 1:
            raise UserError(f"widths are {list(widths)}, but there is at least one, each at least 1.")
        if not 1 <= pool <= min(image_shape[1:]):
            raise UserError(
                f"pool is {pool}, but it is at least 1 and at most the {min(image_shape[1:])} pixels of an"
                " image's shorter side."
            )
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise([image_shape[0], *widths]):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.1)]
        layers.insert(3, nn.MaxPool2d(pool))
        super().__init__(*layers)


def _of_pixels(image_shape: Shape, width: int, bias: bool = True) -> nn.Linear:
    if width < 1:
        raise UserError(f"width is {width}, but H0 has at least 1 number.")
    return nn.Linear(math.prod(image_shape), width, bias)


class PatchEncoder(nn.Module):
    """One matrix applied to square patches of the image, plus an embedding of their positions (Dosovitskiy et
    al., "An Image is Worth 16x16 Words", ICLR 2021).

    Maps ``(N, C, H, W)`` to tokens ``(N, L, width)``, one for each of the ``L = H W / patch^2`` patches.

    Args:
        image_shape: channels, height and width of an image.
        patch: side of a patch in pixels; must divide height and width.
        width: numbers in a token.

    Raises:
        UserError: for an impossible argument.
    """

    def __init__(self, image_shape: Shape, patch: int = 4, width: int = 64) -> None:
        super().__init__()
        channels, height, width_pixels = image_shape
        if patch < 1 or height % patch or width_pixels % patch:
            raise UserError(
                f"patch is {patch}, but it must divide the {height}x{width_pixels} pixels of an image."
            )
        if width < 1:
            raise UserError(f"width is {width}, but a token has at least 1 number.")
        self.patches = nn.Conv2d(channels, width, patch, patch)
        tokens = (height // patch) * (width_pixels // patch)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens H0."""
        tokens: Tensor = self.patches(x).flatten(2).mT
        return tokens + self.positions
