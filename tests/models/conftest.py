"""A linear cell, whose fixed point and gradients have closed forms."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from deq_collapse.models import Cell, Equilibrium


class LinearCell(Cell):
    """``f(z, h0) = A z + U h0 + b`` on flattened maps, with ``||A||_2 = norm``; counts its evaluations."""

    def __init__(self, shape: tuple[int, int, int], norm: float = 0.9, symmetric: bool = False) -> None:
        super().__init__()
        d = shape[0] * shape[1] * shape[2]
        a = torch.randn(d, d, dtype=torch.float64)
        a = a + a.T if symmetric else a
        self.A = nn.Parameter(norm * a / torch.linalg.matrix_norm(a, 2))
        self.U = nn.Parameter(torch.randn(d, d, dtype=torch.float64) / d**0.5)
        self.b = nn.Parameter(torch.randn(d, dtype=torch.float64))
        self.evaluations = 0

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        self.evaluations += 1
        return (z.flatten(1) @ self.A.T + h0.flatten(1) @ self.U.T + self.b).view_as(z)

    def fixed_point(self, h0: Tensor) -> Tensor:
        """``(I - A)^-1 (U h0 + b)``, differentiable."""
        right = h0.flatten(1) @ self.U.T + self.b
        return torch.linalg.solve(torch.eye(len(self.A), dtype=self.A.dtype) - self.A, right.T).T.view_as(h0)


@pytest.fixture
def exact() -> Callable[..., Equilibrium]:
    """Makes an equilibrium of a linear cell, solved in float64 as far as float64 goes."""

    def make(
        shape: tuple[int, int, int] = (3, 2, 2), norm: float = 0.9, symmetric: bool = False, **options
    ) -> Equilibrium:
        torch.manual_seed(0)
        tight = {
            "tol": 1e-13,
            "backward_tol": 1e-13,
            "eval_tol": 1e-13,
            "max_iter": 500,
            "eval_max_iter": 500,
        }
        cell = partial(LinearCell, norm=norm, symmetric=symmetric)
        return Equilibrium(shape, cell, **(tight | options))

    return make
