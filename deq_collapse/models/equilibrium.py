"""The equilibrium refinement: H0 -> z*, the fixed point of one cell (Bai et al., "Deep Equilibrium
Models", 2019).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
import torchdeq
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torchdeq.solver.stat import SolverStat

from deq_collapse.errors import UserError
from deq_collapse.models.cells import CellFactory, Shape
from deq_collapse.models.gradients import Gradient, Unrolled, refuse_second_derivatives
from deq_collapse.models.jacobian import check_jacobian_weight, jacobian_term
from deq_collapse.models.solution import Solution, Solve
from deq_collapse.models.solvers import Solver, norms, registered, relative_residual, solver_of
from deq_collapse.models.spectral import spectral_radius
from deq_collapse.models.tolerance import Tolerance

Function = Callable[[Tensor], Tensor]


class Equilibrium(nn.Module):
    """``z* = f(z*, H0)`` by torchdeq, with relative tolerances in both directions.

    What is solved (the cell), by what (a solver), until when (a tolerance) and how it is differentiated (a
    gradient) are objects of their own; each of the last three has a shorthand. ``solve`` hands back the
    record of its call, a :class:`~deq_collapse.models.solution.Solution`, which the adjoint solves of that
    call's own graph are added to; ``latest`` is the last one, and ``recorded`` keeps all of a block.

    In eval mode z* is solved for whatever the gradient, and the module ``iterate`` is called with the state
    after every evaluation of the cell, the last of which is z*: hook it to watch the solver at work. Under
    autocast the equilibrium still computes in float32.

    Args:
        shape: shape of one sample of H0.
        cell: makes the cell for that shape.
        solver: solves the forward equation: ``anderson_relative``, ``broyden_relative``,
            ``fixed_point_relative`` or a :class:`~deq_collapse.models.solvers.Solver`, as
            ``Broyden(window=20)``.
        backward_solver: solves the adjoint equation; by default the same.
        gradient: ``ift``, ``jfb``, ``phantom(k, tau)`` or ``unrolled(k)``, or a
            :class:`~deq_collapse.models.gradients.Gradient`. With ``unrolled(k)`` training sees the k-th
            iterate, and ``tol``, ``max_iter`` and both solvers have no part in it; the record still has its
            residual, and which samples are farther from a fixed point than ``tol``.
        tol: relative residual at which training stops solving forward, or a
            :class:`~deq_collapse.models.tolerance.Tolerance`.
        backward_tol: the same for the adjoint equation. Relative, so that gradients stay as exact as this
            while the loss vanishes.
        eval_tol: the same in eval mode, where the geometry is measured: an unconverged z* would look like
            within-class variability.
        max_iter: evaluations at most, in training, per direction.
        eval_max_iter: evaluations at most in eval mode.
        jacobian_weight: weight in the training loss of ``||J_f(z*)||_F^2 / dim z``, estimated with one
            random vector per step (Bai et al., "Stabilizing Equilibrium Models by Jacobian Regularization",
            2021). It costs about an evaluation and its second derivative; 0 costs nothing.

    Raises:
        UserError: for a solver, a gradient or a number that is not one.
    """

    def __init__(
        self,
        shape: Shape,
        cell: CellFactory,
        solver: str | Solver = "anderson_relative",
        backward_solver: str | Solver | None = None,
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
        """Takes the place of ``gradient`` in training while it is set."""
        self.start: Tensor | None = None
        """Where the next training batch's solve starts, used once; NaN stands for the cell's own start."""
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
        """Where the latest call ended."""
        return None if self.latest is None else self.latest.state

    def compile(self, *args: Any, **options: Any) -> None:
        """Compiles the map that is solved, one evaluation, by ``torch.compile``, whose arguments these are;
        solvers stay as they are. Like any compiled module's, a copy is not compiled.
        """
        functorch_config.donated_buffer = False  # adjoint equations run one backward pass again and again
        self._compiler = partial(torch.compile, *args, **options)

    def forward(self, h0: Tensor) -> Tensor:
        """H0 to the cell's output at the fixed point; the shape of H0, unless the cell says otherwise.

        Raises:
            UserError: where the cell's weights are of half precision, in which no tolerance here is met.
        """
        return self.solve(h0)[0]

    def solve(self, h0: Tensor) -> tuple[Tensor, Solution]:
        """What :meth:`forward` gives, and the record of how it was found."""
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
        """z*, watched; the same whatever the gradient."""
        options = {
            "watch": lambda z: self.iterate(self.cell.output(z)),
            # A compiled map would be compiled anew for every number of samples.
            "narrowed": None if self._compiler else lambda at: self._equation(h0[at])[1],
        }
        self.deq.f_tol = self.eval_tol.relative
        states, stat = self.deq(f, self.cell.start(h0), solver_kwargs=options)
        return states[-1], Solution(states[-1], None, Solve.from_stat(stat))

    def _train(self, f: Function, h0: Tensor) -> tuple[Tensor, Solution]:
        """The state with the graph of the gradient."""
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
        """z* with the graph of torchdeq's core, and how it was found; ``backward`` is where the adjoint
        solves of this graph are noted, whatever else has been called by then.
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
        """H0 and the map to be solved, in full precision whenever it is called."""
        half = (torch.float16, torch.bfloat16)
        if any(p.dtype in half for p in self.cell.parameters()):
            self.refuse_half()
        device = h0.device.type
        h0 = h0.float() if h0.dtype in half else h0
        with torch.autocast(device, enabled=False):
            f = self.cell.at(h0)
        f = self._compiler(f) if self._compiler else f
        return h0, _full_precision(f, device) if torch.is_autocast_enabled(device) else f

    @staticmethod
    def refuse_half() -> NoReturn:
        """What is said of weights in half precision.

        Raises:
            UserError: always.
        """
        raise UserError(
            "an equilibrium is solved in float32, but its cell's weights are of half precision;"
            " trainer.precision is one of 32-true, 64-true, bf16-mixed and 16-mixed."
        )

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
        # torchdeq's module holds closures, which cannot be pickled, and no weights: it is made anew.
        state = self.__dict__ | {"latest": None, "start": None, "_records": [], "_compiler": None}
        state["_modules"] = {name: module for name, module in self._modules.items() if name != "deq"}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.deq = self._core().train(self.training)


def _full_precision(f: Function, device: str) -> Function:
    """f with autocast off: the backward pass calls it again, whatever surrounds that."""

    def wrapped(z: Tensor) -> Tensor:
        with torch.autocast(device, enabled=False):
            return f(z)

    return wrapped
