"""Anderson acceleration that stays exact at small residuals, registered with torchdeq as
``anderson_relative``.

Differences from torchdeq's ``anderson``: the ridge is relative to each sample's Gram matrix (an absolute one
switches the acceleration off once residuals are small), a sample that has converged is frozen (its solution
does not depend on its batch mates), NaN or Inf in one sample stays in that sample, and each sample gets a
status. Source: Walker & Ni, "Anderson Acceleration for Fixed-Point Iterations", SIAM J. Numer. Anal. 2011.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torchdeq.solver import register_solver
from torchdeq.solver.stat import SolverStat

CONVERGED, CAPPED, DIVERGED = 0, 1, 2
"""What became of a sample: reached the tolerance, ran out of evaluations, or met NaN or Inf."""


def relative_residual(fx: Tensor, x: Tensor) -> Tensor:
    """``||f(x) - x|| / ||f(x)||`` per sample.

    Args:
        fx: ``f(x)``, shape ``(N, ...)``.
        x: the point, same shape.

    Returns:
        Shape ``(N,)``; 0 where both norms are 0. No constant is added to the denominator: gradients of a
        vanishing loss are far smaller than any such constant, and the backward solve stays relative.
    """
    size, step = (torch.linalg.vector_norm(v.flatten(1), dim=1) for v in (fx, fx - x))
    residual: Tensor = step / size.clamp_min(torch.finfo(fx.dtype).tiny)
    return residual


def mixing_weights(gram: Tensor, ridge: float) -> Tensor:
    """Weights of the combination of past residuals with the least norm, among those that sum to one.

    Args:
        gram: inner products of the past residuals of each sample, shape ``(N, m, m)``.
        ridge: Tikhonov term as a fraction of each sample's mean squared residual.

    Returns:
        Shape ``(N, m)``, each row summing to one; all equal where the system is singular.
    """
    m = gram.shape[1]
    scale = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(gram.dtype).tiny)
    system = gram / scale[:, None, None] + ridge * torch.eye(m, dtype=gram.dtype, device=gram.device)
    ones = torch.ones(gram.shape[0], m, 1, dtype=gram.dtype, device=gram.device)
    solution = torch.linalg.solve_ex(system, ones)[0].squeeze(2)
    weights = solution / solution.sum(1, keepdim=True)
    return torch.where(weights.isfinite().all(1, keepdim=True), weights, 1.0 / m)


def anderson(
    func: Callable[[Tensor], Tensor],
    x0: Tensor,
    max_iter: int = 50,
    tol: float = 1e-4,
    stop_mode: Literal["rel"] = "rel",
    indexing: Sequence[int] | None = None,
    window: int = 5,
    ridge: float = 1e-7,
    watch: Callable[[Tensor], object] | None = None,
) -> tuple[Tensor, list[Tensor], SolverStat]:
    """Solves ``x = func(x)`` for every sample of a batch.

    Args:
        func: the map; its value for a sample must depend on that sample alone.
        x0: start, shape ``(N, ...)``.
        max_iter: evaluations of ``func`` at most, at least 1.
        tol: a sample is done when its relative residual is at most this.
        stop_mode: only ``"rel"``; torchdeq hands it over, and an absolute tolerance is refused.
        indexing: torchdeq's request for intermediate states; the last state answers each.
        window: number of past residuals that are combined.
        ridge: see :func:`mixing_weights`.
        watch: called after each evaluation with the result so far, where samples that are done stay put.

    Returns:
        The last ``func(x)`` of each sample (its first below the tolerance), the states asked for, and the
        statistics: torchdeq's keys, and ``evaluations`` (of ``func``), ``status`` (N,), ``rel_lowest`` (N,).

    Raises:
        ValueError: for an absolute tolerance or fewer than one evaluation.
    """
    if stop_mode != "rel" or max_iter < 1:
        raise ValueError("anderson_relative takes stop_mode='rel' and max_iter of at least 1.")
    n = x0.shape[0]
    values = x0.new_zeros(n, window, x0[0].numel())
    residuals = torch.zeros_like(values)
    gram = x0.new_zeros(n, window, window)
    x, result = x0, x0
    residual = x0.new_full((n,), float("inf"))
    status = torch.full((n,), CAPPED, dtype=torch.int8, device=x0.device)
    trace = []
    for k in range(max_iter):
        fx = func(x)
        current = relative_residual(fx, x)
        open_ = status == CAPPED
        broken = open_ & ~current.isfinite()
        taken = open_ & ~broken
        result = torch.where(_like(taken, fx), fx, result)
        residual = torch.where(taken, current, residual)
        status = torch.where(taken & (current <= tol), CONVERGED, torch.where(broken, DIVERGED, status))
        trace.append(residual)
        if watch is not None:
            watch(result)
        if k + 1 == max_iter or bool((status != CAPPED).all()):
            break
        slot, used = k % window, min(k + 1, window)
        values[:, slot] = fx.flatten(1)
        residuals[:, slot] = (fx - x).flatten(1)
        row = torch.bmm(residuals[:, :used], residuals[:, slot, :, None]).squeeze(2)
        gram[:, slot, :used] = row
        gram[:, :used, slot] = row
        weights = mixing_weights(gram[:, :used, :used], ridge)
        x = torch.bmm(weights[:, None], values[:, :used]).view_as(x0)
    return result, [result for _ in indexing or ()], _statistics(trace, status)


def _like(mask: Tensor, x: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (x.dim() - 1))


def _statistics(trace: list[Tensor], status: Tensor) -> SolverStat:
    stats = SolverStat(rel_lowest=trace[-1], rel_trace=torch.stack(trace, 1))
    stats["status"] = status
    stats["evaluations"] = len(trace)
    return stats


fixed_point = partial(anderson, window=1)
"""Plain iteration ``x <- func(x)``, with the arguments, freezing and statistics of :func:`anderson`."""

SOLVERS: dict[str, Callable[..., Any]] = {"anderson_relative": anderson, "fixed_point_relative": fixed_point}
"""Our solvers under the names torchdeq knows them by."""

for _name, _solver in SOLVERS.items():
    register_solver(_name, _solver)
