"""The explicit refinement: H0 -> features map by a stack of blocks."""

from torch import Tensor, nn

from deq_collapse.models.cells import CellFactory, Shape


class Explicit(nn.Module):
    """A stack of ``depth`` blocks with weights of their own: ``z_0 = H0, z_l = f_l(z_{l-1}, H0)``.

    At depth 1 it is the equilibrium's cell evaluated once, with free weights: the same number of parameters.

    Args:
        shape: channels, height and width of H0.
        block: makes one block for that shape.
        depth: number of blocks, at least 1.
    """

    def __init__(self, shape: Shape, block: CellFactory, depth: int = 1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block(shape) for _ in range(depth))

    def forward(self, h0: Tensor) -> Tensor:
        """Shape ``(N, C, H, W)`` in and out."""
        z = h0
        for block in self.blocks:
            z = block(z, h0)
        return z
