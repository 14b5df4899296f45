"""What one call of an equilibrium found, and at what cost: one record per call."""

from dataclasses import dataclass, field

from torch import Tensor
from torchdeq.solver.stat import SolverStat

from deq_collapse.models.gradients import Gradient
from deq_collapse.models.solvers import CONVERGED


@dataclass(frozen=True)
class Solve:
    """Cost and accuracy of one solve of one batch.

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


@dataclass(frozen=True, eq=False)
class Solution:
    """The record of one call, without its features, so that their graph is not kept alive.

    Attributes:
        state: final state of the call, detached, shape ``(N, ...)``.
        gradient: how it is differentiated; ``None`` in eval mode.
        forward: how the state was found.
        backward: the adjoint solves of its graph, one for each backward pass so far; only for ``ift``.
        jacobian: the estimate of ``||J_f(z*)||_F^2 / dim z``, a scalar with its own graph, if a training step
            requires it.
    """

    state: Tensor
    gradient: Gradient | None
    forward: Solve
    backward: list[Solve] = field(default_factory=list)
    jacobian: Tensor | None = None
