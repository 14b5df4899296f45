"""The multiscale cell: several resolutions of one map, solved for jointly (after Bai, Koltun & Kolter,
"Multiscale Deep Equilibrium Models", NeurIPS 2020).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.models.cells.base import Shape, check_dims, check_lipschitz
from deq_collapse.models.cells.bounded import LIPSCHITZ, Bounded, BoundedConv2d, bounded_weight
from deq_collapse.models.cells.norms import circular_norm, matrix_norm
from deq_collapse.models.cells.scales import ScalesCell, join, scale_shapes, split


class MultiscaleCell(ScalesCell):
    """``z_i = relu(x_i + sum_j R_ij F_ij relu(A_j z_j))`` over scales i, j = 0, 1, ..., each half the last.

    A_j and F_ii are 3x3 convolutions, F_ij between two scales a 1x1 convolution, x_i is H0 averaged down to
    scale i, and R_ij resamples: it sums 2x2 blocks and halves them, or spreads a pixel over 2x2 and halves
    it, so its norm is 1. The state is one vector of all scales. The output is a map of the coarsest scale's
    size with the channels of every scale, the finer ones averaged down, so that its global average is that of
    each scale.

    Guaranteed in eval mode: f is a contraction with factor ``lipschitz``, so it has exactly one fixed point,
    to which plain iteration converges. The norm of each A_j, and that of all F_ij together as one operator,
    is at most the square root of ``lipschitz``. ``lipschitz_bound`` proves this for up to 1024 numbers in a
    state; beyond that it combines bounds on each F_ij, and is 1.6 times as large on runs of `digits`.

    It differs from the paper's cell: each branch has one convolution instead of a residual block; there is no
    group normalisation or dropout, under which nothing would be guaranteed; every scale has the same number
    of channels; one resampling and a 1x1 convolution join two scales, not a chain of strided ones; and every
    scale receives H0, not only the finest.

    Args:
        shape: channels, height and width of ``h0``, the finest scale.
        scales: number of scales, at least 1; height and width must be divisible by ``2^(scales - 1)``.
        lipschitz: the contraction factor, in (0, 1).

    Raises:
        UserError: for an argument out of range, and for an H0 of vectors.
    """

    def __init__(self, shape: Shape, scales: int = 2, lipschitz: float = LIPSCHITZ) -> None:
        super().__init__()
        check_dims("MultiscaleCell", shape, 3)
        check_lipschitz(lipschitz)
        self.shapes = scale_shapes(shape, scales)
        self.branches = nn.ModuleList(BoundedConv2d(each, lipschitz**0.5) for each in self.shapes)
        self.fusion = Fusion(self.shapes, lipschitz**0.5)

    def at(self, h0: Tensor) -> Callable[[Tensor], Tensor]:
        """The map, with all weights scaled once and H0 averaged down once."""
        weights = [bounded_weight(branch) for branch in self._branches()]
        scale = self.fusion.scale()
        fusion = [[weight * scale for weight in row] for row in self.fusion.rows()]
        x = self.lift(h0)

        def f(z: Tensor) -> Tensor:
            maps = zip(split(z, self.shapes), weights, strict=True)
            y = [F.relu(F.conv2d(z_j, weight, padding=1)) for z_j, weight in maps]
            return F.relu(x + join(_fuse(y, fusion)))

        return f

    def lipschitz_bound(self) -> float:
        """The largest norm of a branch times that of the fusion, both bounded from above."""
        return max(branch.norm_bound() for branch in self._branches()) * self.fusion.norm_bound()

    def _branches(self) -> list[BoundedConv2d]:
        return [branch for branch in self.branches if isinstance(branch, BoundedConv2d)]


class Fusion(Bounded):
    """``y_i = sum_j R_ij F_ij x_j``: every scale to every scale, as one operator of bounded norm.

    Args:
        shapes: channels, height and width of each scale.
        bound: largest operator norm allowed, above 0.
    """

    def __init__(self, shapes: Sequence[Shape], bound: float) -> None:
        super().__init__()
        self.shapes = shapes
        channels, scales = shapes[0][0], range(len(shapes))
        self.weights = nn.ParameterList(
            nn.Conv2d(channels, channels, 3 if i == j else 1, bias=False).weight
            for i in scales
            for j in scales
        )
        self.follow((sum(math.prod(shape) for shape in shapes),), bound)

    def rows(self) -> list[list[Tensor]]:
        """The weights F_ij, row by row."""
        scales = len(self.shapes)
        return [[self.weights[i * scales + j] for j in range(scales)] for i in range(scales)]

    def linear(self, x: Tensor) -> Tensor:
        """The map on joined scales, (N, D)."""
        return join(_fuse(split(x, self.shapes), self.rows()))

    def adjoint(self, y: Tensor) -> Tensor:
        """Its transpose: the kernels transposed and mirrored."""
        columns = zip(*self.rows(), strict=True)
        turned = [[weight.transpose(0, 1).flip(2, 3) for weight in column] for column in columns]
        return join(_fuse(split(y, self.shapes), turned))

    def large_norm_bound(self) -> float:
        """The norm of the matrix whose entries bound the norms of the F_ij."""
        norms = [
            [
                circular_norm(weight, *self.shapes[i][1:])
                if i == j
                else matrix_norm(weight.flatten(1).double())
                for j, weight in enumerate(row)
            ]
            for i, row in enumerate(self.rows())
        ]
        return matrix_norm(torch.tensor(norms))


def _fuse(x: Sequence[Tensor], weights: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """``sum_j R_ij F_ij x_j`` for each i."""
    return [
        torch.stack(
            [_carry(x_j, weight, i - j) for j, (x_j, weight) in enumerate(zip(x, row, strict=True))]
        ).sum(0)
        for i, row in enumerate(weights)
    ]


def _carry(x: Tensor, weight: Tensor, halvings: int) -> Tensor:
    """``R F x``, with F acting at the coarser of the two scales."""
    factor = 2 ** abs(halvings)
    if halvings > 0:
        x = factor * F.avg_pool2d(x, factor)
    y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    if halvings < 0:
        y = y[:, :, :, None, :, None].expand(-1, -1, -1, factor, -1, factor) / factor
        y = y.flatten(2, 3).flatten(3, 4)
    return y
