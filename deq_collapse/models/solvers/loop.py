"""What all solvers share: evaluate, see which samples are done, and ask for the next point.

A sample that has converged is frozen (its solution does not depend on its batch mates), NaN or Inf in one
sample stays in that sample, and each sample gets a status.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypedDict

import torch
from torch import Tensor
from torchdeq.solver.stat import SolverStat

CONVERGED, CAPPED, DIVERGED = 0, 1, 2
"""What became of a sample: reached the tolerance, ran out of evaluations, or met NaN or Inf."""

Function = Callable[[Tensor], Tensor]
Result = tuple[Tensor, list[Tensor], SolverStat]


class Step:
    """Where to evaluate next, for one solve. This one is plain iteration; others remember past points."""

    def distance(self, x: Tensor, fx: Tensor) -> Tensor:
        """``||f(x) - x||`` per sample, shape ``(N,)``; x and ``f(x)`` have shape ``(N, d)``. Called before
        each step from there, so what that needs of the difference is kept.
        """
        return norms(fx - x)

    def __call__(self, x: Tensor, fx: Tensor) -> Tensor:
        """The next point, from this one."""
        return fx


def norms(x: Tensor) -> Tensor:
    """The norm of each sample, shape ``(N,)``."""
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norm


class Options(TypedDict, total=False):
    """What every solver takes; see :func:`solve`."""

    max_iter: int
    tol: float
    stop_mode: Literal["rel"]
    indexing: Sequence[int] | None
    watch: Callable[[Tensor], object] | None


def relative_residual(distance: Tensor, fx: Tensor) -> Tensor:
    """``||f(x) - x|| / ||f(x)||`` per sample.

    Args:
        distance: ``||f(x) - x||``, shape ``(N,)``.
        fx: ``f(x)``, shape ``(N, ...)``.

    Returns:
        Shape ``(N,)``; 0 where both norms are 0. No constant is added to the denominator: gradients of a
        vanishing loss are far smaller than any such constant, and the backward solve stays relative.
    """
    return distance / norms(fx).clamp_min(torch.finfo(fx.dtype).tiny)


@torch.no_grad()
def solve(
    func: Function,
    x0: Tensor,
    step: Step,
    max_iter: int = 50,
    tol: float = 1e-4,
    stop_mode: Literal["rel"] = "rel",
    indexing: Sequence[int] | None = None,
    watch: Callable[[Tensor], object] | None = None,
) -> Result:
    """Solves ``x = func(x)`` for every sample of a batch; no gradient passes through.

    Args:
        func: the map; its value for a sample must depend on that sample alone.
        x0: start, shape ``(N, ...)``.
        step: proposes where to evaluate next.
        max_iter: evaluations of ``func`` at most, at least 1.
        tol: a sample is done when its relative residual is at most this.
        stop_mode: only ``"rel"``; torchdeq hands it over, and an absolute tolerance is refused.
        indexing: torchdeq's request for intermediate states; the last state answers each.
        watch: called after each evaluation with the result so far, where samples that are done stay put.

    Returns:
        The last ``func(x)`` of each sample (its first below the tolerance), the states asked for, and the
        statistics: torchdeq's keys, and ``evaluations`` (of ``func``), ``status`` (N,), ``rel_lowest`` (N,).

    Raises:
        ValueError: for an absolute tolerance or fewer than one evaluation.
    """
    if stop_mode != "rel" or max_iter < 1:
        raise ValueError("a relative solver takes stop_mode='rel' and max_iter of at least 1.")
    residual = x0.new_full((len(x0),), float("inf"))
    active = torch.ones_like(residual, dtype=torch.bool)
    broken = ~active
    all_active, trace = True, []
    with torch.autocast(x0.device.type, enabled=False):  # the adjoint equation too, wherever it is solved
        value = func(x0)
        unit = units(value)
        if unit is not None:
            func, watch = _in_units(func, watch, unit)
            x0, value = x0 / unit, value / unit
        order = _Order(value)
        x = result = order.rows(x0)
        for k in range(max_iter):
            fx = order.rows(value)
            current = relative_residual(step.distance(x, fx), fx)
            # Once per evaluation, here or below, the host waits for the device.
            if all_active and _all_between(tol, current):
                residual, result = current, fx
            else:
                taken = active & (current < torch.inf)  # which is false of NaN too
                broken = broken | (active > taken)
                active = taken & (current > tol)
                residual = torch.where(taken, current, residual)
                result = torch.where(taken[:, None], fx, result)
                all_active = False
            trace.append(residual)
            if watch is not None:
                watch(order.samples(result))
            if k + 1 == max_iter or not (all_active or active.any()):
                break
            x = step(x, fx)
            value = func(order.samples(x))
    stats = SolverStat(rel_lowest=residual, rel_trace=torch.stack(trace, 1))
    stats["status"] = CAPPED * active + DIVERGED * broken
    stats["evaluations"] = len(trace)
    solution = order.samples(result)
    solution = solution if unit is None else solution * unit
    return solution, [solution for _ in indexing or ()], stats


def units(value: Tensor) -> Tensor | None:
    """Units of the samples of ``value``, (N, ...), in which their largest entry is about 1, of shape
    ``(N, 1, ...)``; None where that of all is such that its square is an ordinary number.

    The adjoint equation is as small as the loss: below 1e-16 its squares vanish in float32, and with them
    every residual. Units are powers of two, so that nothing is rounded.
    """
    largest = torch.linalg.vector_norm(value, float("inf"), dim=tuple(range(1, value.dim())))
    exponent = torch.frexp(largest).exponent
    limit = math.frexp(torch.finfo(value.dtype).tiny)[1] // 4
    strange = (largest > 0) & (largest < torch.inf) & (exponent.abs() > -limit)
    if not strange.any():
        return None
    ones = torch.ones_like(largest)
    return torch.ldexp(ones, torch.where(strange, exponent, 0)).view(-1, *[1] * (value.dim() - 1))


def _in_units(
    func: Function, watch: Callable[[Tensor], object] | None, unit: Tensor
) -> tuple[Function, Callable[[Tensor], object] | None]:
    """The map, and whoever watches it, seen from states in those units."""

    def scaled(x: Tensor) -> Tensor:
        return func(x * unit) / unit

    return scaled, None if watch is None else lambda x: watch(x * unit)


class _Order:
    """Samples as rows, without a copy of those that lie in memory as these do: by channel or by pixel."""

    def __init__(self, like: Tensor) -> None:
        self.shape = like.shape[1:]
        by_pixel = like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last)
        self.by_pixel = by_pixel and not like.is_contiguous()

    def rows(self, samples: Tensor) -> Tensor:
        """(N, ...) to (N, d)."""
        return (samples.permute(0, 2, 3, 1) if self.by_pixel else samples).flatten(1)

    def samples(self, rows: Tensor) -> Tensor:
        """(N, d) to (N, ...)."""
        if not self.by_pixel:
            return rows.view(-1, *self.shape)
        channels, height, width = self.shape
        return rows.view(-1, height, width, channels).permute(0, 3, 1, 2)


def _all_between(low: float, values: Tensor) -> bool:
    """Whether all are above ``low`` and finite."""
    least, largest = torch.stack(torch.aminmax(values)).tolist()
    return bool(least > low and largest < torch.inf)


_spare: list[Tensor] = []


@contextmanager
def workspace(like: Tensor, states: int) -> Iterator[Tensor]:
    """Memory for ``states`` states of the shape of ``like``, not initialised, of shape ``(N, states, d)``.

    On the CPU the next solve gets the same memory: the pages of fresh memory cost 4% of a solve.
    """
    numel = states * like.numel()
    spare = _spare.pop() if _spare and not like.is_cuda else like.new_empty(0)
    fits = spare.numel() >= numel and (spare.dtype, spare.device) == (like.dtype, like.device)
    with torch.inference_mode(False):  # else it could not serve a training step after a measurement
        memory = spare if fits else like.new_empty(numel)
    yield memory[:numel].view(len(like), states, -1)
    if not like.is_cuda:
        _spare[:] = [memory]
