"""The explicit refinement: H0 -> feature map by a stack of blocks, including the twins of an equilibrium."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from deq_collapse.errors import UserError
from deq_collapse.models.cells import Cell, CellFactory, Shape
from deq_collapse.models.jacobian import check_jacobian_weight, jacobian_term
from deq_collapse.models.matching import matched_widths


class Explicit(nn.Module):
    """A stack of blocks: ``z_0 = H0, z_l = f_l(z_{l-1}, H0)`` for l = 1..depth; features are ``z_depth``.

    If the shape of a cell's state differs from that of H0, z_0 is its ``lift`` of H0, and features are its
    ``output``.

    Three variants have as many parameters as an equilibrium on the same block: depth 1, the cell evaluated
    once; ``tied``, one block applied ``depth`` times, the equilibrium's iteration truncated; and ``matched``,
    blocks with their own weights, each narrower inside. Otherwise there are the parameters of ``depth``
    blocks.

    Args:
        shape: of one sample of H0, ``(C, H, W)`` or ``(d,)``.
        block: makes one block for that shape.
        depth: number of blocks applied, at least 1.
        tied: use the same block every time.
        matched: give the blocks inner widths, at most 1 apart, such that all of them together have as many
            parameters as one block of its usual width. The block must take ``inner_width``.
        jacobian_weight: weight in the training loss of ``||J_f(z)||_F^2 / dim z`` of the last block at the
            features z, the term that an :class:`~deq_collapse.models.Equilibrium` may have at its fixed
            point; see :func:`~deq_collapse.models.jacobian.jacobian_term`. ``None`` is 0, which costs
            nothing, and does not count as a key, so that older runs stay the same.

    Attributes:
        jacobian: the term of the latest call, a scalar with its own graph; None without a weight or if no
            gradient is required.

    Raises:
        UserError: for a depth below 1, for ``tied`` and ``matched`` together, if no inner widths bring the
            parameters within 1% of one block's, and for a weight below 0.
    """

    jacobian: Tensor | None

    def __init__(
        self,
        shape: Shape,
        block: CellFactory,
        depth: int = 1,
        tied: bool = False,
        matched: bool = False,
        jacobian_weight: float | None = None,
    ) -> None:
        super().__init__()
        self.jacobian_weight, self.jacobian = jacobian_weight or 0.0, None
        check_jacobian_weight(self.jacobian_weight)
        if depth < 1:
            raise UserError(f"depth is {depth}, but an explicit refinement applies a block at least once.")
        if tied and matched:
            raise UserError(
                "tied blocks are one block, whose parameters need no matching: leave out matched."
            )
        self.depth, self.tied = depth, tied
        self.inner_widths = matched_widths(block, shape, depth) if matched and depth > 1 else []
        make: Callable[..., Cell] = block
        narrow = [make(shape, inner_width=width) for width in self.inner_widths]
        self.blocks = nn.ModuleList(narrow or [make(shape) for _ in range(1 if tied else depth)])

    def forward(self, h0: Tensor) -> Tensor:
        """Features in the shape of H0, unless the cell changes it."""
        first, last = self._cell(0), self._cell(self.depth - 1)
        z = first.lift(h0)
        for step in range(self.depth):
            z = self._cell(step)(z, h0)
        weight = self.jacobian_weight if self.training else 0.0
        self.jacobian = jacobian_term(lambda at: last(at, h0), z, weight)
        return z if z.shape == h0.shape else last.output(z)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return state | {"jacobian": None}  # a copy has no call, hence no graph

    def _cell(self, step: int) -> Cell:
        cell = self.blocks[0 if self.tied else step]
        assert isinstance(cell, Cell)
        return cell

    def extra_repr(self) -> str:
        """Depth, and how the blocks share the parameters of one."""
        words = [f"depth={self.depth}"]
        if self.tied:
            words.append("tied")
        if self.inner_widths:
            counts = Counter(self.inner_widths).items()
            words.append("inner widths " + " + ".join(f"{n} x {width}" for width, n in counts))
        return ", ".join(words)
