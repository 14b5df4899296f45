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
"""How many times the width of attention the perceptron has inside (Vaswani et al. 2017)."""


class TransformerCell(Cell):
    """``f(z, h0) = n(y + mlp(y))`` with ``y = n(z + x + O attention(W z + U x))`` and ``x = n(h0)``.

    n is layer normalisation of each token without affine map, after the sums; the perceptron has one layer of
    ReLU inside. As in the paper, H0 enters where queries, keys and values are made. It also enters the sum,
    as in the residual cell: without that, on 16 patches of noise and with first weights of any size, Anderson
    missed 1e-5 after 100 evaluations on up to all of 16 samples. The paper's attention is causal and
    knows distances; this one is neither, so f commutes with permutations of the tokens, and positions are the
    encoder's to embed.

    Guaranteed for any weights: f has a fixed point for every ``h0``. It is continuous, and n leaves no token
    of D numbers a length above ``sqrt(D)``, so f maps a ball into itself (Brouwer). That fixed point need not
    be the only one, nor do solvers need to find it: f is no contraction, and ``lipschitz_bound`` is ``None``.
    With first weights and 16 tokens of 48 numbers, Anderson needed 11 evaluations to 1e-5.

    Args:
        shape: number L of tokens and their width D.
        heads: of attention; must divide D. Where the width inside is another one, the largest number up to
            that which divides it.
        init_std: standard deviation of the first weights of every matrix; biases start at 0.
        inner_width: width of attention, of all heads together, D where ``None``; the perceptron has four
            times as many numbers inside.

    Raises:
        UserError: for an argument out of range, and for an H0 that is no tokens.
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
        """The map with ``x`` and ``U x`` computed once."""
        norm = h0.shape[-1:]
        x = F.layer_norm(h0, norm)
        drive = self.U(x)

        def f(z: Tensor) -> Tensor:
            y = F.layer_norm(z + x + self.O(attention(self.W(z) + drive, self.heads)), norm)
            return F.layer_norm(y + self.mlp(y), norm)

        return f


def attention(qkv: Tensor, heads: int) -> Tensor:
    """``softmax(Q K^T / sqrt(d)) V`` for each head of width d, written out: torch's fused one has no second
    derivative on a CPU, which the Jacobian term needs.

    Args:
        qkv: queries, keys and values side by side, (N, L, 3 heads d).
        heads: how many.

    Returns:
        Shape (N, L, heads d).
    """
    n, tokens, width = qkv.shape
    q, k, v = qkv.reshape(n, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1)
    return torch.matmul(weights, v).transpose(1, 2).flatten(2)
