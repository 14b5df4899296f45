"""A block of a transformer on tokens, after the DEQ-Transformer of Bai, Kolter & Koltun ("Deep Equilibrium
Models", NeurIPS 2019).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models.cells.base import Cell, Shape, check_dims, check_width
from deq_collapse.models.cells.kernels import check_std, largest_divisor

HIDDEN = 4
"""Ratio of the perceptron's inner width to that of attention (Vaswani et al. 2017)."""


class TransformerCell(Cell):
    """``f(z, h0) = n(y + mlp(y))`` with ``y = n(z + x + O attention(W z + U x))`` and ``x = n(h0)``.

    n is layer normalisation of each token without affine map, after the sums; the perceptron has one hidden
    ReLU layer. As in the paper, H0 enters the computation of queries, keys and values. It also enters the
    sum, as in the residual cell: otherwise, on 16 patches of noise and with initial weights of any size,
    Anderson missed 1e-5 after 100 evaluations on up to all of 16 samples. The paper's attention is causal and
    position-aware; this one is neither, so f commutes with permutations of the tokens, and the encoder has to
    embed positions.

    Guaranteed for any weights: f has a fixed point for every ``h0``. It is continuous, and after n no token
    of D numbers is longer than ``sqrt(D)``, so f maps a ball into itself (Brouwer). The fixed point may not
    be unique, and solvers may not find it: f is not a contraction, and ``lipschitz_bound`` is ``None``. With
    initial weights and 16 tokens of 48 numbers, Anderson needed 11 evaluations to reach 1e-5.

    Args:
        shape: number L of tokens and their width D.
        heads: of attention; must divide D. If the inner width differs, the largest number up to this one that
            divides it.
        init_std: standard deviation of the initial weights of every matrix; biases start at 0.
        inner_width: width of attention, all heads together; ``None`` for D. The perceptron is four times as
            wide inside.

    Raises:
        UserError: for an argument out of range, and for an H0 that is not tokens.
    """

    def __init__(
        self, shape: Shape, heads: int = 4, init_std: float = 0.05, inner_width: int | None = None
    ) -> None:
        super().__init__()
        check_dims("TransformerCell", shape, 2)
        check_std(init_std)
        width = shape[1]
        inner = check_width(inner_width, width)
        if heads < 1 or width % heads:
            raise UserError(f"heads is {heads}, but the {width} numbers of a token must be divisible by it.")
        self.heads = largest_divisor(inner, heads)
        self.W = nn.Linear(width, 3 * inner, bias=False)
        self.U = nn.Linear(width, 3 * inner)
        self.O = nn.Linear(inner, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, HIDDEN * inner), nn.ReLU(), nn.Linear(HIDDEN * inner, width)
        )
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=init_std)

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        """One evaluation; (N, L, D) in and out."""
        return self.at(h0)(z)

    def at(self, h0: Tensor) -> Callable[[Tensor], Tensor]:
        """The map, with ``x`` and ``U x`` computed once."""
        norm = h0.shape[-1:]
        x = F.layer_norm(h0, norm)
        drive = self.U(x)

        def f(z: Tensor) -> Tensor:
            y = F.layer_norm(z + x + self.O(attention(self.W(z) + drive, self.heads)), norm)
            return F.layer_norm(y + self.mlp(y), norm)

        return f


def attention(qkv: Tensor, heads: int) -> Tensor:
    """``softmax(Q K^T / sqrt(d)) V`` for each head of width d, written out because torch's fused version
    lacks the second derivative on a CPU that the Jacobian term needs.

    Args:
        qkv: queries, keys and values side by side, (N, L, 3 heads d).
        heads: number of heads.

    Returns:
        Shape (N, L, heads d).
    """
    n, tokens, width = qkv.shape
    q, k, v = qkv.reshape(n, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1)
    return torch.matmul(weights, v).transpose(1, 2).flatten(2)
