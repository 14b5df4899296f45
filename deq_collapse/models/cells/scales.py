"""A state of several scales, each half the size of the previous, as one vector."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models.cells.base import Cell, Shape


def scale_shapes(shape: Shape, scales: int, least: int = 1) -> list[Shape]:
    """Channels, height and width of each scale, the finest first.

    Args:
        shape: of the finest scale.
        scales: number of scales.
        least: smallest number allowed.

    Raises:
        UserError: for fewer scales, and for a map that cannot be halved that many times.
    """
    channels, height, width = shape
    if scales < least or height % 2 ** (scales - 1) or width % 2 ** (scales - 1):
        raise UserError(
            f"scales is {scales}, but it is at least {least}, and the {height}x{width} map of H0 must be"
            " divisible by 2^(scales - 1)."
        )
    return [(channels, height >> i, width >> i) for i in range(scales)]


def split(state: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """The maps of all scales, as views of a state (N, D)."""
    parts = torch.split(state, [math.prod(shape) for shape in shapes], dim=1)
    return [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def join(maps: Sequence[Tensor]) -> Tensor:
    """The state (N, D) of the maps of all scales."""
    return torch.cat([each.flatten(1) for each in maps], 1)


def fold(maps: Sequence[Tensor]) -> Tensor:
    """The maps of all scales as one of the coarsest one's size: (N, C (4^(S-1) + ... + 4 + 1), h, w), every
    pixel of a finer scale's square as a channel of its own.
    """
    last = len(maps) - 1
    return torch.cat([F.pixel_unshuffle(z, 2 ** (last - i)) for i, z in enumerate(maps)], 1)


def unfold(folded: Tensor, scales: int) -> list[Tensor]:
    """The maps that :func:`fold` took, the finest first.

    Raises:
        UserError: if that many scales cannot have so many channels.
    """
    parts = [4**i for i in reversed(range(scales))]
    if folded.dim() != 4 or folded.shape[1] % sum(parts):
        raise UserError(
            f"{scales} folded scales have a map with a multiple of {sum(parts)} channels, but got"
            f" (N, {', '.join(map(str, folded.shape[1:]))})."
        )
    channels = folded.shape[1] // sum(parts)
    pieces = torch.split(folded, [channels * part for part in parts], dim=1)
    return [F.pixel_shuffle(piece, 2 ** (scales - 1 - i)) for i, piece in enumerate(pieces)]


class ScalesCell(Cell):
    """Base of a cell whose state is one vector of several scales; it sets ``shapes`` and has ``at``."""

    shapes: list[Shape]

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        """One evaluation; ``z`` has shape (N, D), ``h0`` (N, C, H, W)."""
        return self.at(h0)(z)

    def start(self, h0: Tensor) -> Tensor:
        """Zeros, (N, D)."""
        return h0.new_zeros(len(h0), sum(math.prod(each) for each in self.shapes))

    def lift(self, h0: Tensor) -> Tensor:
        """H0 averaged down to every scale, (N, D); a single evaluation from zeros would not use the first
        weights that act on z.
        """
        return join([F.avg_pool2d(h0, 2**i) for i in range(len(self.shapes))])

    def output(self, state: Tensor) -> Tensor:
        """All scales at the coarsest one's size, (N, scales C, h, w); its global average is that of each."""
        maps = split(state, self.shapes)
        last = len(maps) - 1
        return torch.cat([F.avg_pool2d(z, 2 ** (last - i)) for i, z in enumerate(maps)], 1)
