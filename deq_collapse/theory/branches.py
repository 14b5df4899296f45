"""Explicit against equilibrium when the last map is peeled off, too: both branches under the same budgets.

docs/theory.md states the programs and proves the results used here.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import exp
from typing import NamedTuple

import torch
from torch import Tensor

from deq_collapse.theory.loss import log_cross_entropy
from deq_collapse.theory.minimise import minimise

Cost = Callable[[Tensor], Tensor]
"""Energy that a map needs for its singular values, (K,) to (K,), increasing from 0."""


STARTS, TRIED, FOLLOWED = 16, 50, 3
"""Number of random starts, of steps of each, and of starts continued to their end."""


class Budgets(NamedTuple):
    """The budgets of both branches.

    Attributes:
        weights: E_W, ||W||_F^2 <= K E_W.
        maps: E_V, ||V||_F^2 <= K E_V, or ||A||_F^2 + ||U||_F^2 <= K E_V.
        inputs: E_0, ||H0||_F^2 <= K E_0, one input per class.
        radius: rho < 1, ||A||_2 <= rho.
    """

    weights: float = 1.0
    maps: float = 1.0
    inputs: float = 5.0
    radius: float = 0.5


class Solution(NamedTuple):
    """The best point found.

    Attributes:
        loss: cross entropy, mean over samples.
        classifier: W, (K, K).
        inputs: H0, (K, K), a column per class.
        A: (K, K); zero in the explicit branch.
        U: (K, K); V in the explicit branch.
        residual: of the optimality conditions of the program in (W, A, U, H0), relative; see `kkt_residual`.
        losses: final losses of the starts that were continued to their end.
    """

    loss: float
    classifier: Tensor
    inputs: Tensor
    A: Tensor
    U: Tensor
    residual: float
    losses: tuple[float, ...]

    @property
    def features(self) -> Tensor:
        """H, (K, K), a column per class."""
        return linear_equilibrium(self.A, self.U @ self.inputs)


def linear_equilibrium(A: Tensor, x: Tensor) -> Tensor:
    """z* = A z* + x, (d, n)."""
    z: Tensor = torch.linalg.solve(torch.eye(len(A), dtype=A.dtype) - A, x)
    return z


def equilibrium_gradient(A: Tensor, z: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients with respect to A and x of a function with a given gradient with respect to z*, by the
    implicit function theorem: y = (I - A)^-T dL/dz*, dL/dA = y z*^T, dL/dx = y.
    """
    y = linear_equilibrium(A.T, gradient)
    return y @ z.T, y


def explicit_cost(m: Tensor) -> Tensor:
    """||V||_F^2 = sum m^2."""
    return m.square()


@lru_cache(maxsize=8)
def equilibrium_cost(radius: float) -> Cost:
    """The least ||A||_F^2 + ||U||_F^2 with (I - A)^-1 U = M and ||A||_2 <= rho, by singular value m of M:
    m^2 / (1 + m^2) up to m^2 = rho / (1 - rho), rho^2 + (1 - rho)^2 m^2 beyond.
    """

    def cost(m: Tensor) -> Tensor:
        square = m.square()
        free = square / (1 + square)
        return torch.where(square * (1 - radius) <= radius, free, radius**2 + (1 - radius) ** 2 * square)

    return cost


def split_equilibrium(M: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """The A and U of least energy, see `equilibrium_cost`."""
    left, m, _ = torch.linalg.svd(M)
    a = (m.square() / (1 + m.square())).clamp(max=radius)
    A = (left * a) @ left.T
    return A, M - A @ M


def explicit_branch(
    counts: Sequence[float], budgets: Budgets, starts: int = STARTS, seed: int = 0
) -> Solution:
    """min CE(W V H0) over W, V, H0 within the budgets; d = K."""
    W, M, H0, losses = _minimise(tuple(counts), budgets, explicit_cost, starts, seed)
    return _solution(counts, W, torch.zeros_like(M), M, H0, budgets.radius, losses)


def equilibrium_branch(
    counts: Sequence[float], budgets: Budgets, starts: int = STARTS, seed: int = 0
) -> Solution:
    """min CE(W z*) with z* = A z* + U h0 over W, A, U, H0 within the budgets; d = K."""
    W, M, H0, losses = _minimise(tuple(counts), budgets, equilibrium_cost(budgets.radius), starts, seed)
    A, U = split_equilibrium(M, budgets.radius)
    return _solution(counts, W, A, U, H0, budgets.radius, losses)


@lru_cache(maxsize=64)
def _minimise(
    counts: tuple[float, ...], budgets: Budgets, cost: Cost, starts: int, seed: int
) -> tuple[Tensor, Tensor, Tensor, tuple[float, ...]]:
    """W, M, H0 of the least loss found, and the final losses of the starts that were continued, which are the
    best ones after `TRIED` steps. M is diagonal: with its SVD M = P S Q^T, W P, S and Q^T H0 have the same
    loss and the same energies.
    """
    k = len(counts)
    generator = torch.Generator().manual_seed(seed)

    def factors(point: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Spends every budget in full: a larger W never hurts and does not affect the other budgets."""
        W, m, H0 = point
        W = W * (k * budgets.weights) ** 0.5 / W.norm()
        H0 = H0 * (k * budgets.inputs) ** 0.5 / H0.norm()
        return W, m * spend(m.abs(), cost, k * budgets.maps), H0

    def loss(point: Sequence[Tensor]) -> Tensor:
        W, m, H0 = factors(point)
        return log_cross_entropy((W * m) @ H0, counts)

    def value(point: Sequence[Tensor]) -> float:
        return float(loss(point).detach())

    tried = []
    for _ in range(starts):
        W, M, H0 = (torch.randn((k, k), generator=generator, dtype=torch.float64) for _ in range(3))
        tried.append(minimise(loss, [W, torch.linalg.svdvals(M), H0], TRIED))
    ends = [minimise(loss, point, 2000) for point in sorted(tried, key=value)[:FOLLOWED]]
    W, m, H0 = (t.detach() for t in factors(min(ends, key=value)))
    return W, torch.diag(m), H0, tuple(exp(value(point)) for point in ends)


def spend(m: Tensor, cost: Cost, budget: float) -> Tensor:
    """t > 0 with sum cost(t m) = budget, differentiable with respect to m."""
    values = m.detach()
    low, high = -23.0, 23.0  # of log t, relative to the largest singular value
    for _ in range(3):
        grid = torch.linspace(low, high, 256, dtype=m.dtype)
        spent = cost(grid.exp()[:, None] * (values / values.max())).sum(1)
        place = int(torch.searchsorted(spent, budget).clamp(1, 255))
        low, high = float(grid[place - 1]), float(grid[place])
    t = (grid[place].exp() / values.max()).requires_grad_()
    for _ in range(3):
        with torch.enable_grad():
            spent = cost(t * values).sum()
            (slope,) = torch.autograd.grad(spent, t)
        t = (t - (spent - budget) / slope).detach().requires_grad_()
    # One more step, from the root: the value does not change, and the derivative is that of the implicit
    # function.
    return t.detach() - (cost(t.detach() * m).sum() - budget) / slope


def _solution(
    counts: Sequence[float],
    W: Tensor,
    A: Tensor,
    U: Tensor,
    H0: Tensor,
    radius: float,
    losses: tuple[float, ...],
) -> Solution:
    explicit = not bool(A.any())
    residual = kkt_residual(counts, W, A, U, H0, None if explicit else radius)
    loss = float(log_cross_entropy(W @ linear_equilibrium(A, U @ H0), counts).exp())
    return Solution(loss, W, H0, A, U, residual, losses)


def kkt_residual(
    counts: Sequence[float], W: Tensor, A: Tensor, U: Tensor, H0: Tensor, radius: float | None
) -> float:
    """The distance of the gradients from being multiples of the factors, relative to the gradients: the
    largest over W, H0 and the map (A, U). With a radius, the remainder for A may push against
    ||A||_2 <= radius.
    """
    z = linear_equilibrium(A, U @ H0)
    logits = (W @ z).requires_grad_()
    (g,) = torch.autograd.grad(log_cross_entropy(logits, counts), logits)
    by_A, by_x = equilibrium_gradient(A, z, W.T @ g)
    by_U = by_x @ H0.T
    price = -(by_U * U).sum() / U.square().sum()
    rest = [by_U + price * U]
    if radius is not None:
        rest.append(_outside_cone(-(by_A + price * A), A, radius))
    scale = torch.cat([by_U, by_A] if radius is not None else [by_U]).norm()
    residuals = [torch.cat(rest).norm() / scale]
    for factor, gradient in ((W, g @ z.T), (H0, U.T @ by_x)):
        along = (gradient * factor).sum() / factor.square().sum()
        residuals.append((gradient - along * factor).norm() / gradient.norm())
    return float(torch.stack(residuals).max())


def _outside_cone(push: Tensor, A: Tensor, radius: float) -> Tensor:
    """The part of `push` that is not normal to {||A||_2 <= radius} at A."""
    left, a, right = torch.linalg.svd(A)
    active = a >= radius * (1 - 1e-9)
    P, Q = left[:, active], right[active].T
    inner = P.T @ push @ Q
    values, vectors = torch.linalg.eigh((inner + inner.T) / 2)
    normal: Tensor = P @ (vectors * values.clamp(min=0)) @ vectors.T @ Q.T
    return push - normal
