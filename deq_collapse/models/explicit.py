"""The explicit refinement: H0 -> feature map by a stack of blocks, including the twins of an equilibrium."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deq_collapse.errors import UserError
from deq_collapse.models.cells import Cell, CellFactory, Shape
from deq_collapse.models.gradients import Gradient, Phantom
from deq_collapse.models.jacobian import check_jacobian_weight, jacobian_term
from deq_collapse.models.matching import matched_widths


class Explicit(nn.Module):
    """A stack of blocks: ``z_0 = H0, z_l = f_l(z_{l-1}, H0)`` for l = 1..depth; features are ``z_depth``.

    z_0 is the cell's ``lift`` of H0, which is H0 itself unless the cell has another. If the shape of a cell's
    state differs from that of H0, features are its ``output``.

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
        gradient: ``jfb`` or ``phantom(k, tau)``, the approximate gradient that an
            :class:`~deq_collapse.models.Equilibrium` may have at its fixed point, here at the features of
            tied blocks: truncated backpropagation, which keeps the activations of k steps alone. What the
            network computes stays the same. ``None`` is the exact gradient of all steps.

    Attributes:
        jacobian: the term of the latest call, a scalar with its own graph; None without a weight or if no
            gradient is required.

    Raises:
        UserError: for a depth below 1, for ``tied`` and ``matched`` together, if no inner widths bring the
            parameters within 1% of one block's, for a weight below 0, for another gradient, and for a
            gradient of blocks with weights of their own, to which it gives none but the last.
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
        gradient: str | Gradient | None = None,
    ) -> None:
        super().__init__()
        self.jacobian_weight, self.jacobian = jacobian_weight or 0.0, None
        check_jacobian_weight(self.jacobian_weight)
        self.gradient = None if gradient is None else _local(gradient, one_block=tied or depth == 1)
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
        last = self._cell(self.depth - 1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient is None):
            z = self._steps(h0)

        def f(at: Tensor) -> Tensor:
            after: Tensor = last(at, h0)
            return after

        if self.gradient is not None and torch.is_grad_enabled():
            z = self.gradient.attached(f, z)
        self.jacobian = jacobian_term(f, z, self.jacobian_weight if self.training else 0.0)
        return z if z.shape == h0.shape else self.output(z)

    def lift(self, h0: Tensor) -> Tensor:
        """The state from which the blocks start."""
        return self._cell(0).lift(h0)

    def output(self, z: Tensor) -> Tensor:
        """The features of a state that has another shape than H0."""
        return self._cell(self.depth - 1).output(z)

    def _steps(self, h0: Tensor) -> Tensor:
        """The state after all blocks."""
        z = self.lift(h0)
        for step in range(self.depth):
            z = self._cell(step)(z, h0)
        return z

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
        if self.gradient is not None:
            words.append(f"gradient {self.gradient}")
        return ", ".join(words)


def _local(gradient: str | Gradient, one_block: bool) -> Phantom:
    """The steps of an approximate gradient.

    Raises:
        UserError: for a gradient that is not of steps from the features, and for several blocks.
    """
    local = Gradient.of(gradient).local
    if local is None:
        raise UserError(
            f"the gradient of an explicit refinement is {gradient}, but it is jfb or phantom(k, tau), or"
            " null, the exact one; a file before may have set it for an equilibrium."
        )
    if not one_block:
        raise UserError(
            f"the gradient {gradient} is that of steps of one block, but blocks here have weights of their"
            " own: set tied, or leave out gradient."
        )
    return local
