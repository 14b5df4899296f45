"""The unfolded refinement: H0 -> the k-th iterate of a solve, an explicit network whose layers are the steps
of an algorithm (Gregor & LeCun, "Learning Fast Approximations of Sparse Coding", ICML 2010).
"""

import torch
from torch import Tensor, nn

from deq_collapse.errors import UserError
from deq_collapse.models.cells import CellFactory, Shape
from deq_collapse.models.precision import widened


class Unfolded(nn.Module):
    """``depth`` steps of the map that solvers iterate, from where a solve starts, with the exact gradient.

    It computes what an :class:`~deq_collapse.models.Equilibrium` with plain iteration has after ``depth``
    evaluations, in training and where the geometry is measured, and has its parameters. Tied blocks of an
    :class:`~deq_collapse.models.Explicit` apply the cell itself, from H0. The two differ in more than their
    start where solvers iterate another map than the cell: a
    :class:`~deq_collapse.models.MonotoneCell` is solved by a splitting, which comes near its fixed point
    where repeating the layer need not. As an equilibrium, it computes in float32 under autocast.

    The module ``iterate`` is called with the output after every step, the last of which is what is returned.

    Args:
        shape: shape of one sample of H0.
        cell: makes the cell for that shape.
        depth: number of steps, at least 1.

    Raises:
        UserError: for a depth below 1.
    """

    def __init__(self, shape: Shape, cell: CellFactory, depth: int) -> None:
        super().__init__()
        if depth < 1:
            raise UserError(f"depth is {depth}, but an unfolded refinement takes at least 1 step.")
        self.depth, self.cell, self.iterate = depth, cell(shape), nn.Identity()

    def forward(self, h0: Tensor) -> Tensor:
        """The cell's output at the last iterate, in the shape of H0 unless the cell changes it.

        Raises:
            UserError: if the cell's weights are in half precision.
        """
        h0 = widened(self.cell, h0)
        with torch.autocast(h0.device.type, enabled=False):
            f, state = self.cell.at(h0), self.cell.start(h0)
            for _ in range(self.depth):
                state = f(state)
                z: Tensor = self.iterate(self.cell.output(state))
        return z

    def extra_repr(self) -> str:
        """The number of steps."""
        return f"depth={self.depth}"
