"""The equilibrium refinement: H0 -> z*, the fixed point of one cell (Bai et al., "Deep Equilibrium
Models", 2019).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torchdeq
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torchdeq.loss import jac_reg
from torchdeq.solver.stat import SolverStat

from deq_collapse.errors import UserError
from deq_collapse.models.cells import CellFactory, Shape
from deq_collapse.models.gradients import Gradient, refuse_second_derivatives, unroll
from deq_collapse.models.solvers import CONVERGED, SOLVERS, norms, relative_residual
from deq_collapse.models.spectral import spectral_radius

Solver = Literal["anderson_relative", "broyden_relative", "fixed_point_relative"]


@dataclass(frozen=True)
class Solve:
    """What one solve of one batch cost and reached.

    Attributes:
        evaluations: of the cell (forward) or of its vector-Jacobian product (backward).
        residual: relative residual per sample, shape ``(N,)``.
        missed: which samples missed the tolerance, shape ``(N,)``, bool.
    """

    evaluations: int
    residual: Tensor
    missed: Tensor

    @classmethod
    def from_stat(cls, stat: SolverStat) -> "Solve":
        """Reads the statistics that the solvers of :mod:`deq_collapse.models.solvers` return."""
        return cls(stat["evaluations"], stat["rel_lowest"], stat["status"] != CONVERGED)


class Equilibrium(nn.Module):
    """``z* = f(z*, H0)`` by torchdeq, with relative tolerances in both directions.

    After each forward pass ``forward_solve`` tells what it cost and reached; after each backward pass with
    ``gradient="ift"``, ``backward_solve`` does. In eval mode z* is solved for whatever the gradient mode, and
    the module ``iterate`` is called with the state after every evaluation of the cell, the last of which is
    z*: hook it to watch the solver at work. Under autocast the equilibrium still computes in float32.

    Args:
        shape: shape of one sample of H0.
        cell: makes the cell for that shape.
        solver: solves the forward equation.
        backward_solver: solves the adjoint equation; by default the same.
        gradient: ``ift``, ``jfb``, ``phantom(k, tau)`` or ``unrolled(k)``, see
            :class:`~deq_collapse.models.gradients.Gradient`. With ``unrolled(k)`` training sees the k-th
            iterate, and ``tol``, ``max_iter`` and both solvers have no part in it; ``forward_solve`` still
            tells its residual, and which samples are farther from a fixed point than ``tol``.
        tol: relative residual at which training stops solving forward.
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
        UserError: for a solver, a gradient or a weight that is not one.
    """

    def __init__(
        self,
        shape: Shape,
        cell: CellFactory,
        solver: Solver = "anderson_relative",
        backward_solver: Solver | None = None,
        gradient: str = "ift",
        tol: float = 1e-4,
        backward_tol: float = 1e-4,
        eval_tol: float = 1e-5,
        max_iter: int = 40,
        eval_max_iter: int = 100,
        jacobian_weight: float = 0.0,
    ) -> None:
        super().__init__()
        _refuse(max_iter < 1 or eval_max_iter < 1, "a solver needs at least 1 evaluation")
        _refuse(not all(t > 0 for t in (tol, backward_tol, eval_tol)), "a tolerance is above 0")
        _refuse(not jacobian_weight >= 0, f"jacobian_weight is {jacobian_weight}, but it is at least 0")
        self.solver, self.backward_solver = solver, backward_solver or solver
        for name in (self.solver, self.backward_solver):
            _refuse(name not in SOLVERS, f"the solver is {name}, but it is one of {', '.join(SOLVERS)}")
        self.gradient = Gradient.parse(gradient)
        self.tol, self.backward_tol, self.eval_tol = tol, backward_tol, eval_tol
        self.jacobian_weight = jacobian_weight
        self.cell = cell(shape)
        self.iterate = nn.Identity()
        self.forward_solve: Solve | None = None
        self.backward_solve: Solve | None = None
        self.jacobian: Tensor | None = None
        """The estimate of ``||J_f(z*)||_F^2 / dim z`` at the last training batch, where it is asked for."""
        self.start: Tensor | None = None
        """Where the next training batch's solve starts, used once; NaN stands for the cell's own start."""
        self.state: Tensor | None = None
        """Where the last batch's solve ended."""
        self.engine = {
            "core": "indexing",
            "f_solver": self.solver,
            "b_solver": self.backward_solver,
            "f_stop_mode": "rel",
            "b_stop_mode": "rel",
            "b_tol": backward_tol,
            "f_max_iter": max_iter,
            "b_max_iter": max_iter,
            "eval_f_max_iter": eval_max_iter,
            **self.gradient.engine,
        }
        self.deq = torchdeq.get_deq(**self.engine)
        self._compiler: Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]] | None = None

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
        h0, f = self._equation(h0)
        with torch.autocast(h0.device.type, enabled=False):
            return self.cell.output(self._train(f, h0) if self.training else self._evaluate(f, h0))

    def _evaluate(self, f: Callable[[Tensor], Tensor], h0: Tensor) -> Tensor:
        """z*, watched; the same whatever the gradient mode."""
        watch = {"watch": lambda z: self.iterate(self.cell.output(z))}
        self.state, self.forward_solve = self._solve(f, self.cell.start(h0), watch)
        return self.state

    def _train(self, f: Callable[[Tensor], Tensor], h0: Tensor) -> Tensor:
        """The state with the graph of the gradient mode."""
        start = self.cell.start(h0)
        if self.start is not None:
            start = torch.where(self.start.isnan(), start, self.start)
        self.start = self.jacobian = self.backward_solve = None
        if self.gradient.mode == "unrolled":
            previous, state = unroll(f, start, self.gradient.steps)
            residual = relative_residual(norms((state - previous).detach()), state.detach())
            self.forward_solve = Solve(self.gradient.steps, residual, ~(residual <= self.tol))
        else:
            state, self.forward_solve = self._solve(f, start)
            if state.requires_grad:
                state.register_hook(refuse_second_derivatives)  # type: ignore[no-untyped-call]
        self.state = state.detach()
        if self.jacobian_weight and torch.is_grad_enabled():
            z = self.state.clone().requires_grad_()
            self.jacobian = jac_reg(f(z), z)
        return state

    @torch.no_grad()
    def spectral_radius(self, h0: Tensor, state: Tensor) -> Tensor:
        """Spectral radius of the Jacobian at each sample's state of the solve for H0, shape ``(N,)``."""
        h0, f = self._equation(h0)
        with torch.autocast(h0.device.type, enabled=False):
            return spectral_radius(f, state)

    def _equation(self, h0: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """H0 and the map to be solved, in full precision whenever it is called."""
        half = (torch.float16, torch.bfloat16)
        if any(p.dtype in half for p in self.cell.parameters()):
            raise UserError(
                "an equilibrium is solved in float32, but its cell's weights are of half precision;"
                " trainer.precision is one of 32-true, 64-true, bf16-mixed and 16-mixed."
            )
        device = h0.device.type
        h0 = h0.float() if h0.dtype in half else h0
        with torch.autocast(device, enabled=False):
            f = self.cell.at(h0)
        f = self._compiler(f) if self._compiler else f
        return h0, _full_precision(f, device) if torch.is_autocast_enabled(device) else f

    def _solve(
        self, f: Callable[[Tensor], Tensor], start: Tensor, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, Solve]:
        self.deq.f_tol = self.tol if self.training else self.eval_tol
        states, stat = self.deq(f, start, solver_kwargs=options, backward_writer=self._note_backward)
        return states[-1], Solve.from_stat(stat)

    def _note_backward(self, stat: SolverStat) -> None:
        self.backward_solve = Solve.from_stat(stat)

    def __getstate__(self) -> dict[str, Any]:
        # torchdeq's module holds closures, which cannot be pickled, and no weights: it is made anew.
        state = self.__dict__ | {"jacobian": None, "start": None, "state": None, "_compiler": None}
        state["_modules"] = {name: module for name, module in self._modules.items() if name != "deq"}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.deq = torchdeq.get_deq(**self.engine).train(self.training)


def _full_precision(f: Callable[[Tensor], Tensor], device: str) -> Callable[[Tensor], Tensor]:
    """f with autocast off: the backward pass calls it again, whatever surrounds that."""

    def wrapped(z: Tensor) -> Tensor:
        with torch.autocast(device, enabled=False):
            return f(z)

    return wrapped


def _refuse(mistaken: bool, why: str) -> None:
    if mistaken:
        raise UserError(f"{why}.")
