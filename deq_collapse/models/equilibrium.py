"""The equilibrium refinement: H0 -> z*, the fixed point of one cell (Bai et al., "Deep Equilibrium
Models", 2019).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torchdeq
from torch import Tensor, nn
from torchdeq.solver.stat import SolverStat

from deq_collapse.models.cells import CellFactory, Shape
from deq_collapse.models.solvers import CONVERGED

Solver = Literal["anderson_relative", "fixed_point_relative"]
Gradient = Literal["ift", "jfb"]


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
    ``gradient="ift"``, ``backward_solve`` does. In eval mode the module ``iterate`` is called with the state
    after every evaluation of the cell, the last of which is z*: hook it to watch the solver at work.

    Args:
        shape: channels, height and width of H0.
        cell: makes the cell for that shape.
        solver: solves the forward and the backward equation.
        gradient: ``ift``, the implicit function theorem (exact at the fixed point), or ``jfb``, its one-step
            approximation (Fung et al. 2022).
        tol: relative residual at which training stops solving forward.
        backward_tol: the same for the adjoint equation. Relative, so that gradients stay as exact as this
            while the loss vanishes.
        eval_tol: the same in eval mode, where the geometry is measured: an unconverged z* would look like
            within-class variability.
        max_iter: evaluations at most, in training, per direction.
        eval_max_iter: evaluations at most in eval mode.
    """

    def __init__(
        self,
        shape: Shape,
        cell: CellFactory,
        solver: Solver = "anderson_relative",
        gradient: Gradient = "ift",
        tol: float = 1e-4,
        backward_tol: float = 1e-4,
        eval_tol: float = 1e-5,
        max_iter: int = 40,
        eval_max_iter: int = 100,
    ) -> None:
        super().__init__()
        self.cell = cell(shape)
        self.iterate = nn.Identity()
        self.gradient = gradient
        self.tol, self.eval_tol = tol, eval_tol
        self.forward_solve: Solve | None = None
        self.backward_solve: Solve | None = None
        self.engine = {
            "core": "indexing",
            "f_solver": solver,
            "b_solver": solver,
            "f_stop_mode": "rel",
            "b_stop_mode": "rel",
            "b_tol": backward_tol,
            "f_max_iter": max_iter,
            "b_max_iter": max_iter,
            "eval_f_max_iter": eval_max_iter,
            "ift": gradient == "ift",
        }
        self.deq = torchdeq.get_deq(**self.engine)

    def forward(self, h0: Tensor) -> Tensor:
        """H0 to the cell's output at the fixed point; the shape of H0, unless the cell says otherwise."""
        self.deq.f_tol = self.tol if self.training else self.eval_tol
        states, stat = self.deq(
            self.cell.at(h0),
            self.cell.start(h0),
            solver_kwargs={} if self.training else {"watch": lambda z: self.iterate(self.cell.output(z))},
            backward_writer=self._note_backward,
        )
        self.forward_solve = Solve.from_stat(stat)
        return self.cell.output(states[-1])

    def _note_backward(self, stat: SolverStat) -> None:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "second derivatives of an equilibrium are not implemented; create_graph gives wrong ones."
            )
        self.backward_solve = Solve.from_stat(stat)

    def __getstate__(self) -> dict[str, Any]:
        # torchdeq's module holds closures, which cannot be pickled, and no weights: it is made anew.
        state = self.__dict__.copy()
        state["_modules"] = {name: module for name, module in self._modules.items() if name != "deq"}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.deq = torchdeq.get_deq(**self.engine).train(self.training)
