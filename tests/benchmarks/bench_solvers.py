"""What solvers cost over the evaluations alone, ours beside torchdeq's, and the time to one residual.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_solvers.py
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torchdeq.solver import get_solver

from deq_collapse.models import ConvCell, LinearCell, MLPCell, MonotoneCell, MultiscaleCell
from deq_collapse.models.cells import CellFactory, Shape
from deq_collapse.models.solvers import SOLVERS

BATCH, SHAPE, EVALUATIONS = 128, (64, 8, 8), 20
TORCHDEQ = ("fixed_point_iter", "anderson", "broyden")
CELLS: dict[str, tuple[CellFactory, Shape, float]] = {
    "ConvCell": (partial(ConvCell, lipschitz=0.9), SHAPE, 10),
    "LinearCell": (partial(LinearCell, lipschitz=0.9), (512,), 10),
    "MLPCell": (partial(MLPCell, lipschitz=0.9), (512,), 10),
    "MonotoneCell": (partial(MonotoneCell, m=0.5), SHAPE, 1),
    "MultiscaleCell": (partial(MultiscaleCell, lipschitz=0.9), (32, 8, 8), 10),
}
"""How each is made, the shape of H0, and by how much its weights grow where the problem is to be hard."""
# CPU seconds of the one thread: other processes of the machine distort them less than the wall clock.
clock = time.process_time


def problem(name: str, hard: bool) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A cell's map and start, with the weights it begins with, or with large positive ones, whose leading
    eigenvalue comes near the cell's bound.
    """
    torch.manual_seed(0)
    factory, shape, growth = CELLS[name]
    cell, h0 = factory(shape), torch.randn(BATCH, *shape)
    if hard:
        for weight in cell.parameters():
            weight.data.abs_().mul_(growth)
    for _ in range(50):  # what follows the weights step by step gets there
        cell.train().at(h0[:1])
    return cell.eval().at(h0), cell.start(h0)


def fastest(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least time of each, in milliseconds; they take turns, so that a slow moment hits all."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = clock()
            run()
            times[name].append(1000 * (clock() - start))
    return {name: min(column) for name, column in times.items()}


def overhead(rounds: int) -> None:
    """Every solver for as many evaluations, without a tolerance that it could meet."""
    f, start = problem("ConvCell", hard=False)

    def evaluations_alone() -> None:
        z = start
        for _ in range(EVALUATIONS):
            z = f(z)

    runs: dict[str, Callable[[], object]] = {"evaluations alone": evaluations_alone}
    for name, solver in SOLVERS.items():
        runs[f"ours {name}"] = partial(solver, f, start, max_iter=EVALUATIONS, tol=0.0)
    for name in TORCHDEQ:
        options = {"max_iter": EVALUATIONS, "tol": 0.0, "stop_mode": "rel"}
        runs[f"torchdeq {name}"] = partial(get_solver(name), f, start, **options)
    times = fastest(runs, rounds)
    print(f"{EVALUATIONS} evaluations of ConvCell, {SHAPE}, batch {BATCH}, one thread")
    print(f"{'':28} {'ms':>8} {'over the evaluations':>22}")
    for name, ms in times.items():
        print(f"{name:28} {ms:8.0f} {ms / times['evaluations alone'] - 1:+22.0%}")


def to_one_residual(rounds: int) -> None:
    """The time until every sample's relative residual is below a tolerance."""
    print(f"\n{'':38} {'torchdeq fixed point':>22}   " + "".join(f"{name:>26}" for name in SOLVERS))
    print(f"{'':38} {'evaluations':>14} {'ms':>7}   " + f"{'evaluations':>14} {'ratio':>11}" * len(SOLVERS))
    for name in CELLS:
        for hard in (False, True):
            f, start = problem(name, hard)
            for tol in (1e-4, 1e-6):
                row(f"{name}, {'hard' if hard else 'at first'}, {tol:g}", f, start, tol, rounds)


def row(title: str, f: Callable[[Tensor], Tensor], start: Tensor, tol: float, rounds: int) -> None:
    """One problem, one tolerance."""
    options = {"max_iter": 400, "tol": tol, "stop_mode": "rel"}
    theirs = partial(get_solver("fixed_point_iter"), f, start, **options)
    runs = {name: partial(solver, f, start, **options) for name, solver in SOLVERS.items()}
    times = fastest({"theirs": theirs, **runs}, rounds)
    info = theirs()[2]
    count = str(int(info["nstep"].max())) if info["rel_lowest"].max() <= tol else "missed"
    text = f"{title:38} {count:>14} {times['theirs']:7.1f}   "
    for name, run in runs.items():
        info = run()[2]
        count = "missed" if info["status"].any() else str(info["evaluations"])
        text += f"{count:>14} {times[name] / times['theirs']:11.2f} "
    print(text, flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with torch.no_grad():
        overhead(rounds)
        to_one_residual(rounds)


if __name__ == "__main__":
    main()
