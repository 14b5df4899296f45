"""The base of all cells: a cell is the function f(z, H0) that an equilibrium refinement solves for and that
an explicit one applies.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from deq_collapse.errors import UserError

Shape = tuple[int, ...]
"""Shape of one sample: channels, height and width of a map; number and width of tokens; or the length of a
vector.
"""


class Cell(nn.Module):
    """Base of every cell: implement ``forward(z, h0)``, which returns the shape of ``z`` and treats each
    sample on its own, at least in eval mode.

    That is enough for a solver. A cell that is solved by iterating a map other than f overrides ``at``. It
    also overrides ``start`` and ``output`` if the state of that map is not z itself, and ``lift`` if the
    shape of the state differs from that of ``h0``.
    """

    @abstractmethod
    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        """One evaluation of f at ``z``; ``z`` and ``h0`` have shape ``(N, C, H, W)`` or ``(N, d)``."""

    def at(self, h0: Tensor) -> Callable[[Tensor], Tensor]:
        """The map that solvers iterate: ``z -> f(z, h0)``, unless overridden. It is made once per solve, so
        this is the place to compute what all evaluations share.
        """
        return partial(self, h0=h0)

    def start(self, h0: Tensor) -> Tensor:
        """The initial state of a solve: zeros of the shape of ``h0``."""
        return torch.zeros_like(h0)

    def lift(self, h0: Tensor) -> Tensor:
        """H0 as a state, from which an explicit refinement starts: H0 itself."""
        return h0

    def output(self, state: Tensor) -> Tensor:
        """What the refinement returns for a state of that map: the state itself."""
        return state

    def lipschitz_bound(self) -> float | None:
        """A guaranteed upper bound on the Lipschitz constant of the map ``at(h0)`` in eval mode, for the
        current weights and any ``h0``, up to rounding; ``None`` if none is known.
        """
        return None


CellFactory = Callable[[Shape], Cell]
"""Makes a cell for an H0 of a given shape; in a config, the ``class_path`` of a cell and its other
arguments.
"""


def check_dims(cell: str, shape: Shape, dims: int) -> None:
    """Refuses an H0 of the wrong kind, e.g. maps where vectors are needed.

    Raises:
        UserError: unless a sample has ``dims`` dimensions.
    """
    if len(shape) != dims:
        kind = {1: "vectors (d)", 2: "tokens (L, D)", 3: "maps (C, H, W)"}[dims]
        raise UserError(f"{cell} works on {kind}, but H0 has the shape {shape} a sample.")


def check_width(inner_width: int | None, width: int) -> int:
    """The width inside a cell: that of its state, unless given.

    Raises:
        UserError: for a width below 1.
    """
    inner = width if inner_width is None else inner_width
    if inner < 1:
        raise UserError(f"inner_width is {inner}, but a cell has at least 1 channel inside.")
    return inner


def check_dropout(dropout: float) -> None:
    """Refuses an impossible probability of dropping something.

    Raises:
        UserError: unless it is at least 0 and below 1.
    """
    if not 0 <= dropout < 1:
        raise UserError(f"dropout is {dropout}, but it is at least 0 and below 1.")


def check_lipschitz(lipschitz: float) -> None:
    """Refuses a Lipschitz constant under which a map need not be a contraction.

    Raises:
        UserError: unless it lies in (0, 1).
    """
    if not 0 < lipschitz < 1:
        raise UserError(f"lipschitz is {lipschitz}, but a contraction needs a value above 0 and below 1.")
