"""The equilibrium refinement: H0 -> z*, the fixed point of one cell (Bai et al., "Deep Equilibrium
Models", 2019).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torchdeq
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torchdeq.solver.stat import SolverStat

from deq_collapse.models.cells import CellFactory, Shape
from deq_collapse.models.gradients import Gradient, Unrolled, refuse_second_derivatives
from deq_collapse.models.jacobian import check_jacobian_weight, jacobian_term
from deq_collapse.models.precision import widened
from deq_collapse.models.solution import Solution, Solve
from deq_collapse.models.solvers import Solver, norms, registered, relative_residual, solver_of
from deq_collapse.models.spectral import spectral_radius
from deq_collapse.models.tolerance import Tolerance

Function = Callable[[Tensor], Tensor]


class Equilibrium(nn.Module):
    """``z* = f(z*, H0)`` by torchdeq, with relative tolerances in both directions.

    Separate objects define what is solved (the cell), how (a solver), to what accuracy (a tolerance) and how
    it is differentiated (a gradient); each of the last three has a shorthand. ``solve`` also returns the
    record of its call, a :class:`~deq_collapse.models.solution.Solution`, to which the adjoint solves of that
    call's graph are added; ``latest`` is the most recent one, and ``recorded`` collects all those of a block.

    In eval mode z* is solved for whatever the gradient. The module ``iterate`` is called with the state after
    every evaluation of the cell, the last of which is z*: hook it to watch the solver. Under autocast the
    equilibrium still computes in float32.

    Args:
        shape: shape of one sample of H0.
        cell: makes the cell for that shape.
        solver: solves the forward equation: ``anderson_relative``, ``broyden_relative``,
            ``fixed_point_relative`` or a :class:`~deq_collapse.models.solvers.Solver`, such as
            ``Broyden(window=20)``.
        backward_solver: solves the adjoint equation; by default the same.
        gradient: ``ift``, ``jfb``, ``phantom(k, tau)`` or ``unrolled(k)``, or a
            :class:`~deq_collapse.models.gradients.Gradient`. With ``unrolled(k)`` training uses the k-th
            iterate, without ``tol``, ``max_iter`` and both solvers; the record still has its residual and
            tells which samples miss ``tol``.
        tol: relative residual at which the forward solve stops in training, or a
            :class:`~deq_collapse.models.tolerance.Tolerance`.
        backward_tol: the same for the adjoint equation. It is relative, so that gradients stay this exact
            while the loss vanishes.
        eval_tol: the same in eval mode, in which the geometry is measured: an unconverged z* would look like
            within-class variability.
        max_iter: largest number of evaluations in training, per direction.
        eval_max_iter: largest number of evaluations in eval mode.
        jacobian_weight: weight in the training loss of ``||J_f(z*)||_F^2 / dim z``, estimated with one random
            vector per step (Bai et al., "Stabilizing Equilibrium Models by Jacobian Regularization", 2021).
            It costs about one evaluation and its second derivative; 0 costs nothing.

    Raises:
        UserError: for an invalid solver, gradient or number.
    """

    def __init__(
        self,
        shape: Shape,
        cell: CellFactory,
        solver: Solver | str = "anderson_relative",  # in this order a bare import path is one of a class
        backward_solver: Solver | str | None = None,
        gradient: str | Gradient = "ift",
        tol: float | Tolerance = 1e-4,
        backward_tol: float | Tolerance = 1e-4,
        eval_tol: float | Tolerance = 1e-5,
        max_iter: int = 40,
        eval_max_iter: int = 100,
        jacobian_weight: float = 0.0,
    ) -> None:
        super().__init__()
        check_jacobian_weight(jacobian_weight)
        self.solver = solver_of(solver)
        self.backward_solver = self.solver if backward_solver is None else solver_of(backward_solver)
        self.gradient = Gradient.of(gradient)
        self.tol, self.backward_tol = Tolerance.of(tol, max_iter), Tolerance.of(backward_tol, max_iter)
        self.eval_tol = Tolerance.of(eval_tol, eval_max_iter)
        self.jacobian_weight = jacobian_weight
        self.cell = cell(shape)
        self.iterate = nn.Identity()
        self.pretraining: Unrolled | None = None
        """Replaces ``gradient`` in training while it is set."""
        self.start: Tensor | None = None
        """Start of the solve of the next training batch, used once; NaN stands for the cell's own start."""
        self.latest: Solution | None = None
        self._records: list[list[Solution]] = []
        self.deq = self._core()
        self._compiler: Callable[[Function], Function] | None = None

    @property
    def forward_solve(self) -> Solve | None:
        """The forward solve of the latest call."""
        return None if self.latest is None else self.latest.forward

    @property
    def backward_solve(self) -> Solve | None:
        """The last adjoint solve of the latest call's graph, once there is one."""
        return self.latest.backward[-1] if self.latest is not None and self.latest.backward else None

    @property
    def jacobian(self) -> Tensor | None:
        """The Jacobian term of the latest call."""
        return None if self.latest is None else self.latest.jacobian

    @property
    def state(self) -> Tensor | None:
        """The final state of the latest call."""
        return None if self.latest is None else self.latest.state

    def compile(self, *args: Any, **options: Any) -> None:
        """Compiles one evaluation of the solved map with ``torch.compile``, which takes these arguments;
        solvers are not compiled. As for any compiled module, a copy is not compiled.
        """
        functorch_config.donated_buffer = False  # adjoint solves repeat one backward pass
        self._compiler = partial(torch.compile, *args, **options)

    def forward(self, h0: Tensor) -> Tensor:
        """H0 to the cell's output at the fixed point, in the shape of H0 unless the cell changes it.

        Raises:
            UserError: if the cell's weights are in half precision, in which no tolerance here can be met.
        """
        return self.solve(h0)[0]

    def solve(self, h0: Tensor) -> tuple[Tensor, Solution]:
        """What :meth:`forward` returns, and the record of how it was found."""
        h0, f = self._equation(h0)
        with torch.autocast(h0.device.type, enabled=False):
            state, solution = self._train(f, h0) if self.training else self._evaluate(f, h0)
            output = self.cell.output(state)
        self.latest = solution
        for record in self._records:
            record.append(solution)
        return output, solution

    @contextmanager
    def recorded(self) -> Iterator[list[Solution]]:
        """A list to which every call within the block adds its record."""
        record: list[Solution] = []
        self._records.append(record)
        try:
            yield record
        finally:
            self._records = [other for other in self._records if other is not record]

    def _evaluate(self, f: Function, h0: Tensor) -> tuple[Tensor, Solution]:
        """z*, reported to ``iterate``; the same for every gradient."""
        options = {
            "watch": lambda z: self.iterate(self.cell.output(z)),
            # A compiled map would be recompiled for every number of samples.
            "narrowed": None if self._compiler else lambda at: self._equation(h0[at])[1],
        }
        self.deq.f_tol = self.eval_tol.relative
        states, stat = self.deq(f, self.cell.start(h0), solver_kwargs=options)
        return states[-1], Solution(states[-1], None, Solve.from_stat(stat))

    def _train(self, f: Function, h0: Tensor) -> tuple[Tensor, Solution]:
        """The state, with the graph of the gradient."""
        gradient, start = self.pretraining or self.gradient, self.cell.start(h0)
        backward: list[Solve] = []
        if isinstance(gradient, Unrolled):
            previous, state = gradient.states(f, start)
            residual = relative_residual(norms((state - previous).detach()), state.detach())
            forward = Solve(gradient.steps, residual, ~(residual <= self.tol.relative))
        else:
            if self.start is not None:
                start = torch.where(self.start.isnan(), start, self.start)
            state, forward = self._solve(f, start, backward)
        self.start, z = None, state.detach()
        return state, Solution(z, gradient, forward, backward, jacobian_term(f, z, self.jacobian_weight))

    def _solve(self, f: Function, start: Tensor, backward: list[Solve]) -> tuple[Tensor, Solve]:
        """z* with the graph of torchdeq's core, and how it was found; the adjoint solves of this graph are
        added to ``backward``, even if other calls come first.
        """

        def note(stat: SolverStat) -> None:
            backward.append(Solve.from_stat(stat))

        self.deq.f_tol = self.tol.relative
        states, stat = self.deq(f, start, backward_writer=note)
        if states[-1].requires_grad:
            states[-1].register_hook(refuse_second_derivatives)
        return states[-1], Solve.from_stat(stat)

    @torch.no_grad()
    def spectral_radius(self, h0: Tensor, state: Tensor) -> Tensor:
        """Spectral radius of the Jacobian at each sample's state of the solve for H0, shape ``(N,)``."""
        h0, f = self._equation(h0)
        with torch.autocast(h0.device.type, enabled=False):
            return spectral_radius(f, state)

    def _equation(self, h0: Tensor) -> tuple[Tensor, Function]:
        """H0 and the map to be solved, which always runs in full precision."""
        device, h0 = h0.device.type, widened(self.cell, h0)
        with torch.autocast(device, enabled=False):
            f = self.cell.at(h0)
        f = self._compiler(f) if self._compiler else f
        return h0, _full_precision(f, device) if torch.is_autocast_enabled(device) else f

    def _core(self) -> Any:
        """torchdeq's module for these settings."""
        return torchdeq.get_deq(
            core="indexing",
            f_solver=registered(self.solver),
            b_solver=registered(self.backward_solver),
            f_stop_mode="rel",
            b_stop_mode="rel",
            b_tol=self.backward_tol.relative,
            f_max_iter=self.tol.max_iter,
            b_max_iter=self.backward_tol.max_iter,
            eval_f_max_iter=self.eval_tol.max_iter,
            **self.gradient.engine,
        )

    def __getstate__(self) -> dict[str, Any]:
        # torchdeq's module holds closures, which cannot be pickled, and no weights, so it is rebuilt.
        state = self.__dict__ | {"latest": None, "start": None, "_records": [], "_compiler": None}
        state["_modules"] = {name: module for name, module in self._modules.items() if name != "deq"}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.deq = self._core().train(self.training)


def _full_precision(f: Function, device: str) -> Function:
    """f with autocast off: the backward pass calls it again, possibly under autocast."""

    def wrapped(z: Tensor) -> Tensor:
        with torch.autocast(device, enabled=False):
            return f(z)

    return wrapped
