"""The loop shared by all solvers: evaluate, check which samples are done, and ask for the next point.

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
"""Status of a sample: reached the tolerance, ran out of evaluations, or produced NaN or Inf."""

Function = Callable[[Tensor], Tensor]
Result = tuple[Tensor, list[Tensor], SolverStat]


class Step:
    """Chooses where one solve evaluates next. This class is plain iteration; others remember past points."""

    def distance(self, x: Tensor, fx: Tensor) -> Tensor:
        """``||f(x) - x||`` per sample, shape ``(N,)``; x and ``f(x)`` have shape ``(N, d)``. It is called
        before each step from x, so a subclass can keep what the step needs.
        """
        return norms(fx - x)

    def __call__(self, x: Tensor, fx: Tensor) -> Tensor:
        """The next point after x."""
        return fx

    def keep(self, rows: Tensor) -> None:
        """Restricts later steps to the samples at these positions, int64 (n,)."""


def norms(x: Tensor) -> Tensor:
    """The norm of each sample, shape ``(N,)``."""
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norm


class Options(TypedDict, total=False):
    """Options of every solver; see :func:`solve`."""

    max_iter: int
    tol: float
    stop_mode: Literal["rel"]
    indexing: Sequence[int] | None
    watch: Callable[[Tensor], object] | None
    narrowed: Callable[[Tensor], Function] | None


def relative_residual(distance: Tensor, fx: Tensor) -> Tensor:
    """``||f(x) - x|| / ||f(x)||`` per sample.

    Args:
        distance: ``||f(x) - x||``, shape ``(N,)``.
        fx: ``f(x)``, shape ``(N, ...)``.

    Returns:
        Shape ``(N,)``; 0 where both norms are 0. No constant is added to the denominator, so that the
        backward solve stays relative: gradients of a vanishing loss are far smaller than any such constant.
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
    narrowed: Callable[[Tensor], Function] | None = None,
) -> Result:
    """Solves ``x = func(x)`` for every sample of a batch; no gradient passes through.

    Args:
        func: the map; its value for a sample must depend on that sample alone.
        x0: start, shape ``(N, ...)``.
        step: chooses where to evaluate next.
        max_iter: largest number of evaluations of ``func``, at least 1.
        tol: a sample is done when its relative residual is at most this.
        stop_mode: only ``"rel"``; torchdeq passes it, and an absolute tolerance is refused.
        indexing: torchdeq's request for intermediate states; each gets the last state.
        watch: called after each evaluation with the result so far, in which finished samples no longer
            change.
        narrowed: makes the map for the samples at some positions, int64 (n,). If given, finished samples are
            dropped as soon as at most half of the evaluated ones are unfinished.

    Returns:
        The last ``func(x)`` of each sample (its first below the tolerance), the requested states, and the
        statistics: torchdeq's keys, and ``evaluations`` (of ``func``), ``status`` (N,), ``rel_lowest`` (N,).

    Raises:
        ValueError: for an absolute tolerance or fewer than one evaluation.
    """
    if stop_mode != "rel" or max_iter < 1:
        raise ValueError("a relative solver takes stop_mode='rel' and max_iter of at least 1.")
    with torch.autocast(x0.device.type, enabled=False):  # also for adjoint equations, wherever solved
        value = func(x0)
        unit = units(value)
        if unit is not None:
            func, watch, narrowed = _in_units(func, watch, narrowed, unit)
            x0, value = x0 / unit, value / unit
        order = _Order(value)
        x = order.rows(x0)
        samples, trace = _Samples(x, tol), []
        for k in range(max_iter):
            fx = order.rows(value)
            samples.take(relative_residual(step.distance(x, fx), fx), fx)
            trace.append(samples.residual)
            if watch is not None:
                watch(order.samples(samples.result))
            if k + 1 == max_iter or samples.done:
                break
            if narrowed and (left := samples.left()):
                rows, at = left
                step.keep(rows)
                x, fx, func = x[rows], fx[rows], narrowed(at)
            x = step(x, fx)
            value = func(order.samples(x))
    stats = SolverStat(rel_lowest=samples.residual, rel_trace=torch.stack(trace, 1))
    stats["status"] = samples.status
    stats["evaluations"] = len(trace)
    solution = order.samples(samples.result)
    solution = solution if unit is None else solution * unit
    return solution, [solution for _ in indexing or ()], stats


class _Samples:
    """The results of all samples so far, and which samples are still evaluated.

    Attributes:
        residual: its last finite relative residual, (N,).
        result: the value with that residual, rows (N, d); fixed once below the tolerance.
        at: positions of the evaluated samples, int64 (n,); None for all.
    """

    def __init__(self, x0: Tensor, tol: float) -> None:
        self.tol, self.result = tol, x0
        self.at: Tensor | None = None
        self.residual = x0.new_full((len(x0),), float("inf"))
        self._active = torch.ones_like(self.residual, dtype=torch.bool)
        self._broken = ~self._active
        self._all_active = True

    def take(self, residual: Tensor, value: Tensor) -> None:
        """Takes the residuals (n,) and the values (n, d) of the evaluated samples."""
        # The host waits for the device once per evaluation, here or in `done`.
        if self._all_active and _all_between(self.tol, residual):
            self.residual, self.result = residual, value
            return
        active, broken, before, result = map(
            self._at, (self._active, self._broken, self.residual, self.result)
        )
        taken = active & (residual < torch.inf)  # also false for NaN
        self._broken = self._put(self._broken, broken | (active > taken))
        self._active = self._put(self._active, taken & (residual > self.tol))
        self.residual = self._put(self.residual, torch.where(taken, residual, before))
        self.result = self._put(self.result, torch.where(taken[:, None], value, result))
        self._all_active = False

    @property
    def done(self) -> bool:
        """Whether no sample is left."""
        return not (self._all_active or bool(self._active.any()))

    def left(self) -> tuple[Tensor, Tensor] | None:
        """Drops finished samples if they are at least half of the evaluated ones.

        Returns:
            The positions of the others among the evaluated samples and in the batch, int64; None if all stay.
        """
        if self._all_active:
            return None
        active = self._at(self._active)
        rows = active.nonzero()[:, 0]
        if 2 * len(rows) > len(active):
            return None
        self.at = rows if self.at is None else self.at[rows]
        return rows, self.at

    @property
    def status(self) -> Tensor:
        """Status of every sample, (N,)."""
        return CAPPED * self._active + DIVERGED * self._broken

    def _at(self, of_all: Tensor) -> Tensor:
        return of_all if self.at is None else of_all[self.at]

    def _put(self, of_all: Tensor, values: Tensor) -> Tensor:
        return values if self.at is None else of_all.index_copy(0, self.at, values)


def units(value: Tensor) -> Tensor | None:
    """Units of the samples of ``value``, (N, ...), in which their largest entry is about 1, of shape
    ``(N, 1, ...)``; None if no sample's largest entry has a square that would over- or underflow.

    The adjoint equation is as small as the loss: below 1e-16 its squares vanish in float32, and so do all
    residuals. Units are powers of two, so that nothing is rounded.
    """
    largest = torch.linalg.vector_norm(value, float("inf"), dim=tuple(range(1, value.dim())))
    exponent = torch.frexp(largest).exponent
    limit = math.frexp(torch.finfo(value.dtype).tiny)[1] // 4
    strange = (largest > 0) & (largest < torch.inf) & (exponent.abs() > -limit)
    if not strange.any():
        return None
    ones = torch.ones_like(largest)
    return torch.ldexp(ones, torch.where(strange, exponent, 0)).view(-1, *[1] * (value.dim() - 1))


Watch = Callable[[Tensor], object] | None
Narrowed = Callable[[Tensor], Function] | None


def _in_units(
    func: Function, watch: Watch, narrowed: Narrowed, unit: Tensor
) -> tuple[Function, Watch, Narrowed]:
    """The map, its watcher and the maps of some samples, for states in those units."""

    def scaled(func: Function, unit: Tensor) -> Function:
        return lambda x: func(x * unit) / unit

    return (
        scaled(func, unit),
        None if watch is None else lambda x: watch(x * unit),
        None if narrowed is None else lambda at: scaled(narrowed(at), unit[at]),
    )


class _Order:
    """Views samples as rows without copying, in the memory order of ``like``: by channel or by pixel."""

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
def workspace(like: Tensor, window: int, max_iter: int | None) -> Iterator[Tensor]:
    """Memory for the last states of a solve, of the shape of ``like``, uninitialised: ``(N, states, d)`` with
    ``window`` states, but no more than the solve has evaluations.

    On the CPU the next solve reuses the memory: new pages would cost 4% of a solve.
    """
    states = window if max_iter is None else min(window, max_iter)
    numel = states * like.numel()
    spare = _spare.pop() if _spare and not like.is_cuda else like.new_empty(0)
    fits = spare.numel() >= numel and (spare.dtype, spare.device) == (like.dtype, like.device)
    with torch.inference_mode(False):  # else a training step could not reuse it after a measurement
        memory = spare if fits else like.new_empty(numel)
    yield memory[:numel].view(len(like), states, like.shape[1:].numel())
    if not like.is_cuda:
        _spare[:] = [memory]
