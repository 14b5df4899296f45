"""The residual block with group normalisation used in DEQs for images (Bai, Koltun & Kolter, "Multiscale Deep
Equilibrium Models", NeurIPS 2020), at one scale.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.models.cells.base import Cell, Shape, check_dims, check_width
from deq_collapse.models.cells.kernels import (
    GROUPS,
    INIT_STD,
    Kernel,
    check_groups,
    check_std,
    conv,
    largest_divisor,
)


class ResidualCell(Cell):
    """``f(z, h0) = n3(relu(z + n2(h0 + B n1(relu(A z)))))``: 3x3 convolutions A, B, group norms n1, n2, n3.

    It is MDEQ's block at one scale, in the form of the tutorial on implicit layers (Kolter, Duvenaud &
    Johnson, NeurIPS 2020, chapter 4), which normalises after the inner ReLU, not before it as in the paper.

    Guaranteed for any weights: f has a fixed point for every ``h0``. It is continuous, and n3, before its
    affine map, leaves no group of numbers a mean square above 1, so f maps a ball into itself (Brouwer). The
    fixed point may not be unique, and solvers may not find it: f is not a contraction, and
    ``lipschitz_bound`` is ``None``. With initial weights and 48 channels, the Jacobian's spectral radius was
    0.76 and Anderson needed 18 evaluations to reach 1e-5; with ``init_std`` 0.1 and radius 1.2, no solver
    found a fixed point. The Jacobian term of :class:`~deq_collapse.models.Equilibrium` limits the growth of
    the radius in training.

    Args:
        shape: channels, height and width of ``z`` and ``h0``.
        groups: of every norm; must divide the channels. If the inner width differs, n1 has the largest number
            of groups up to this one that divides it.
        init_std: standard deviation of the initial weights of A and B; 0.01 as published.
        weight_norm: learn length and direction of each output channel's kernel separately.
        inner_width: channels between A and B; ``None`` for as many as ``z`` has.

    Raises:
        UserError: for an argument out of range, and for an H0 of vectors.
    """

    def __init__(
        self,
        shape: Shape,
        groups: int = GROUPS,
        init_std: float = INIT_STD,
        weight_norm: bool = False,
        inner_width: int | None = None,
    ) -> None:
        super().__init__()
        check_dims("ResidualCell", shape, 3)
        check_groups(groups, shape[0])
        check_std(init_std)
        width, inner = shape[0], check_width(inner_width, shape[0])
        self.inner = Kernel(width, inner, 3, init_std, weight_norm)
        self.outer = Kernel(inner, width, 3, init_std, weight_norm)
        self.n1 = nn.GroupNorm(largest_divisor(inner, groups), inner)
        self.n2 = nn.GroupNorm(groups, width)
        self.n3 = nn.GroupNorm(groups, width)

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        """One evaluation; (N, C, H, W) in and out."""
        return self.at(h0)(z)

    def at(self, h0: Tensor) -> Callable[[Tensor], Tensor]:
        """The map, with both kernels normalised once."""
        inner, outer = self.inner(), self.outer()

        def f(z: Tensor) -> Tensor:
            y: Tensor = self.n1(F.relu(conv(z, inner)))
            out: Tensor = self.n3(F.relu(z + self.n2(h0 + conv(y, outer))))
            return out

        return f
