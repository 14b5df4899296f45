"""Cross entropy under a budget or a penalty on the nuclear norm: a convex program in the logits."""

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

Kind = Literal["budget", "tail", "penalty"]

TOLERANCE = {f"tol_{of}": 1e-11 for of in ("gap_abs", "gap_rel", "feas")} | {
    f"reduced_tol_{of}": 1e-7 for of in ("gap_abs", "gap_rel", "feas")
}


class _Program(NamedTuple):
    """A convex program over the logits of groups of exchangeable classes, and its parameters.

    With u_g the unit vector constant on group g of m_g classes, Z = sum_g spread_g (I_g - u_g u_g^T) + sum_gh
    block_gh u_g u_h^T; its nuclear norm is sum_g (m_g - 1) |spread_g| + ||block||_*. No spread is negative at
    an optimum.
    """

    problem: Any
    spread: Any
    block: Any
    bias: Any
    shares: Any
    roots: Any
    limit: Any


@lru_cache(maxsize=32)
def _program(sizes: tuple[int, ...], kind: Kind, biased: bool) -> _Program:
    groups, m = len(sizes), np.asarray(sizes, dtype=float)
    spread, block = cp.Variable(groups, nonneg=True), cp.Variable((groups, groups))
    bias = cp.Variable(groups) if biased else np.zeros(groups)
    shares = cp.Parameter(groups, nonneg=kind != "tail")  # their logarithms in the tail
    roots, limit = cp.Parameter(groups, nonneg=True), cp.Parameter(nonneg=True)
    rivals = []  # of each group: logits less the own one, plus the logarithm of how many classes share them
    for g, size in enumerate(sizes):
        own = spread[g] + (block[g, g] - spread[g]) / size
        same = [np.log(size - 1) - spread[g]] if size > 1 else []
        rest = [h for h in range(groups) if h != g]
        others = [block[h, g] / np.sqrt(m[h] * size) + bias[h] - bias[g] + np.log(m[h]) - own for h in rest]
        rivals.append(cp.hstack([*same, *others]))
    norm = cp.multiply(m - 1, roots) @ spread + cp.normNuc(block @ cp.diag(roots))
    if kind == "tail":
        loss = cp.log_sum_exp(cp.hstack([shares[g] + margins for g, margins in enumerate(rivals)]))
    else:
        loss = shares @ cp.hstack([cp.log_sum_exp(cp.hstack([0, margins])) for margins in rivals])
    # A bias is determined up to a constant.
    bounds = [bias[0] == 0] if biased else []
    if kind == "penalty":
        loss = loss + norm
    else:
        bounds.append(norm <= limit)
    return _Program(cp.Problem(cp.Minimize(loss), bounds), spread, block, bias, shares, roots, limit)


def solve(
    counts: Sequence[float],
    roots: NDArray[np.float64],
    kind: Kind,
    limit: float = 0.0,
    biased: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The optimal logits (K, K) without their bias, and that bias (K,).

    Args:
        counts: (K,).
        roots: (K,), factors of the columns inside the norm.
        kind: "budget" bounds the norm by the limit, "penalty" adds it to the loss. "tail" bounds it and
            minimises log sum exp(-margins), to which a small loss is equal up to a factor 1 + O(loss).
        limit: of the norm.
        biased: whether there is a bias.
    """
    n = np.asarray(counts, dtype=float)
    _, first, group, sizes = np.unique(n, return_index=True, return_inverse=True, return_counts=True)
    program = _program(tuple(sizes.tolist()), kind, biased)
    shares = sizes * n[first] / n.sum()
    program.shares.value = np.log(shares) if kind == "tail" else shares
    program.roots.value, program.limit.value = roots[first], limit
    run(program.problem)
    spread, block = program.spread.value, program.block.value
    unit = (group[:, None] == np.arange(len(sizes))) / np.sqrt(sizes)
    centred = np.eye(len(n)) - (group[:, None] == group) / sizes[group]
    logits = spread[group][:, None] * centred + unit @ block @ unit.T
    return logits, (program.bias.value if biased else program.bias)[group]


def run(problem: Any) -> None:
    """Solves in place with Clarabel, an interior-point method.

    Raises:
        ValueError: if it fails.
    """
    with warnings.catch_warnings():
        # A solution that the solver calls inaccurate still meets the looser tolerances.
        warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
        try:
            problem.solve(solver=cp.CLARABEL, **TOLERANCE)
        except cp.SolverError as error:
            raise ValueError(
                "the convex solver failed; are energies and counts within sane bounds?"
            ) from error
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise ValueError(f"the convex solver found the program {problem.status}")
