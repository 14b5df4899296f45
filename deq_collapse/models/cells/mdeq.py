"""MDEQ's cell: residual blocks at several scales and their fusion (Bai, Koltun & Kolter, "Multiscale Deep
Equilibrium Models", NeurIPS 2020, figure 2).
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.models.cells.base import Shape, check_dims, check_dropout, check_width
from deq_collapse.models.cells.kernels import (
    GROUPS,
    INIT_STD,
    Kernel,
    check_groups,
    check_std,
    conv,
    largest_divisor,
)
from deq_collapse.models.cells.scales import ScalesCell, fold, join, scale_shapes, split

EXPANSION = 5
"""Ratio of a block's inner channels to the channels of its scale, as published."""


class MDEQCell(ScalesCell):
    """``f_i = n(C_i relu(sum_j P_ij y_j))`` over scales i, j = 0, 1, ..., each half the size of the last.

    * Residual blocks, ``y_j = n3(relu(z_j + n2(x_j + B_j relu(n1(A_j z_j)))))`` with 3x3 convolutions A_j and
      B_j; H0 enters only at the finest scale, ``x_0 = h0`` and 0 elsewhere.
    * Fusion: P_jj is the identity; to a coarser scale, a 3x3 convolution of stride 2 and a group norm for
      each halving, with a ReLU between successive ones; to a finer one, a 1x1 convolution, a group norm and
      nearest upsampling.
    * A ReLU, a 1x1 convolution C_i, and a group norm without affine map and with half as many groups.

    The state is one vector of all scales, each with the same number of channels, as in the paper's small
    model for CIFAR-10. The output is a map of the coarsest scale's size with the channels of every scale. The
    finer ones are averaged down, or folded, for a head that sees every pixel, such as
    :class:`~deq_collapse.models.MDEQHead`.

    Guaranteed for any weights: f has a fixed point for every ``h0``. It is continuous, and the last group
    norm maps everything into one ball (Brouwer). The fixed point may not be unique, and solvers may not find
    it: f is not a contraction, and ``lipschitz_bound`` is ``None``. With initial weights and 24 channels at
    4x4 and 2x2, Anderson missed 1e-4 on 10 of 16 random samples after 100 evaluations. The authors first
    train through 10 unrolled evaluations and later stop solving after 18, converged or not.

    Args:
        shape: channels, height and width of ``h0``, the finest scale.
        scales: number of scales, at least 2; height and width must be divisible by ``2^(scales - 1)``.
        groups: of the norms; must divide the channels. If the inner width of a block differs, n1 has the
            largest number of groups up to this one that divides it.
        init_std: standard deviation of the initial weights of every convolution.
        weight_norm: learn length and direction of each output channel's kernel separately, for A, B and C.
        inner_width: channels between A and B; ``None`` for five times those of ``h0``.
        dropout: probability with which a channel of ``B_j ...`` is dropped in training; one draw for all
            evaluations of a solve, and one for each of an explicit stack's. ``None`` for no dropout.
        folded: return finer scales folded, every pixel of a square as a channel of its own, instead of
            averaged: ``C (4^(scales - 1) + ... + 4 + 1)`` channels. ``None`` for averaged.

    Raises:
        UserError: for an argument out of range, and for an H0 of vectors.
    """

    def __init__(
        self,
        shape: Shape,
        scales: int = 2,
        groups: int = GROUPS,
        init_std: float = INIT_STD,
        weight_norm: bool = True,
        inner_width: int | None = None,
        dropout: float | None = None,
        folded: bool | None = None,
    ) -> None:
        super().__init__()
        check_dims("MDEQCell", shape, 3)
        check_dropout(dropout or 0.0)
        check_groups(groups, shape[0])
        check_std(init_std)
        width, inner = shape[0], check_width(inner_width, EXPANSION * shape[0])
        self.shapes = scale_shapes(shape, scales, least=2)
        self.branches = nn.ModuleList(
            _Block(width, inner, groups, init_std, weight_norm, dropout or 0.0) for _ in self.shapes
        )
        self.folded = bool(folded)
        self.paths = nn.ModuleList(
            nn.ModuleList(_path(i - j, width, groups, init_std) for j in range(scales)) for i in range(scales)
        )
        self.mixes = nn.ModuleList(Kernel(width, width, 1, init_std, weight_norm) for _ in self.shapes)
        self.norm = nn.GroupNorm(max(1, groups // 2), width, affine=False)

    def at(self, h0: Tensor) -> Callable[[Tensor], Tensor]:
        """The map, with all kernels normalised once."""
        blocks = [block.at(len(h0), h0 if i == 0 else None) for i, block in enumerate(self._blocks())]
        mixes = [mix() for mix in self.mixes]

        def f(state: Tensor) -> Tensor:
            y = [block(z) for block, z in zip(blocks, split(state, self.shapes), strict=True)]
            return join([self._mixed(i, y, mix) for i, mix in enumerate(mixes)])

        return f

    def output(self, state: Tensor) -> Tensor:
        """All scales at the coarsest one's size, averaged or folded."""
        return fold(split(state, self.shapes)) if self.folded else super().output(state)

    def _blocks(self) -> Iterator["_Block"]:
        for block in self.branches:
            assert isinstance(block, _Block)
            yield block

    def _mixed(self, scale: int, y: list[Tensor], mix: Tensor) -> Tensor:
        """The next state at one scale, from all scales."""
        paths = self.paths[scale]
        assert isinstance(paths, nn.ModuleList)
        fused = torch.stack([path(y_j) for path, y_j in zip(paths, y, strict=True)]).sum(0)
        mixed: Tensor = self.norm(conv(F.relu(fused), mix))
        return mixed


class _Block(nn.Module):
    """``n3(relu(z + n2(x + B relu(n1(A z)))))``, with dropout of whole channels before x is added."""

    def __init__(
        self, width: int, inner: int, groups: int, std: float, weight_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        self.width, self.dropout = width, dropout
        self.inner = Kernel(width, inner, 3, std, weight_norm)
        self.outer = Kernel(inner, width, 3, std, weight_norm)
        self.n1 = nn.GroupNorm(largest_divisor(inner, groups), inner)
        self.n2 = nn.GroupNorm(groups, width)
        self.n3 = nn.GroupNorm(groups, width)

    def at(self, samples: int, x: Tensor | None) -> Callable[[Tensor], Tensor]:
        """The map of z, with one draw of what is dropped; without x there is no injection."""
        inner, outer = self.inner(), self.outer()
        drops = self.training and self.dropout > 0
        kept = F.dropout(outer.new_ones(samples, self.width, 1, 1), self.dropout) if drops else None

        def f(z: Tensor) -> Tensor:
            y = conv(F.relu(self.n1(conv(z, inner))), outer)
            y = y if kept is None else kept * y
            out: Tensor = self.n3(F.relu(z + self.n2(y if x is None else x + y)))
            return out

        return f


def _path(halvings: int, width: int, groups: int, std: float) -> nn.Module:
    """The path from one scale to one that is ``halvings`` scales coarser."""

    def step(size: int, stride: int) -> list[nn.Module]:
        made = nn.Conv2d(width, width, size, stride, padding=size // 2, bias=False)
        nn.init.normal_(made.weight, std=std)
        return [made, nn.GroupNorm(groups, width)]

    if halvings < 0:
        return nn.Sequential(*step(1, 1), nn.Upsample(scale_factor=2**-halvings))
    layers: list[nn.Module] = []
    for _ in range(halvings):
        layers += [*step(3, 2), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
