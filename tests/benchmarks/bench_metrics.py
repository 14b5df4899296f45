"""Time and memory of NeuralCollapse beside two float32 passes, all features in memory, and the GEMM floor.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_metrics.py
"""

import argparse
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor

from deq_collapse.metrics import COSTLY, TABLE, ClassStatistics, NeuralCollapse
from deq_collapse.metrics import functional as formulas

Batches = list[tuple[Tensor, Tensor]]
BATCH = 512
# CPU seconds of the one thread: other processes of the machine distort them less than the wall clock.
clock = time.process_time
SHAPES = [(50_000, 512, 10), (50_000, 512, 100), (50_000, 512, 1000), (50_000, 2048, 1000)]


def floor(batches: Batches, weight: Tensor) -> tuple[float, float]:
    """The one float32 GEMM that a pooled covariance needs."""
    start = clock()
    total = torch.zeros(weight.shape[1], weight.shape[1])
    for h, _ in batches:
        total.addmm_(h.T, h)
    return clock() - start, 0.0


def ours(batches: Batches, weight: Tensor, without: tuple[str, ...] = ()) -> tuple[float, float]:
    """One pass with float64-grade sums, NC1-NC4, CDNV, SELI, GOF and all else that is given by default."""
    wanted = [name for name in TABLE if name not in (*COSTLY, *without)]
    metric = NeuralCollapse(*weight.shape, metrics=wanted)
    start = clock()
    for h, y in batches:
        metric.update(h, y, weight)
    middle = clock()
    metric.compute()
    return middle - start, clock() - middle


def without_nc4(batches: Batches, weight: Tensor) -> tuple[float, float]:
    """All but NC4, hence no feature is kept, and NC1 comes from a (d, d) matrix."""
    return ours(batches, weight, without=("nc4",))


def without_nc1(batches: Batches, weight: Tensor) -> tuple[float, float]:
    """All but NC4 and NC1, hence neither features nor a (d, d) matrix."""
    return ours(batches, weight, without=("nc4", "nc1"))


def _formulas(means: Tensor, weight: Tensor) -> None:
    for gram in (means @ means.T, weight @ weight.T):
        formulas.angle_deviation(gram), formulas.etf_distance(gram)
    formulas.norm_variation(means), formulas.norm_variation(weight)
    formulas.nc3(weight, means), formulas.nc3_product(weight @ means.T)


def two_passes(batches: Batches, weight: Tensor) -> tuple[float, float]:
    """Streaming float32, means first, then covariance and NC4; the model has to run twice for it."""
    K, d = weight.shape
    start = clock()
    counts, sums = torch.zeros(K), torch.zeros(K, d)
    for h, y in batches:
        counts.index_add_(0, y, torch.ones(len(y)))
        sums.index_add_(0, y, h)
    means = sums / counts[:, None]
    within, spread, differs, seen = torch.zeros(d, d), torch.zeros(K), 0, 0
    for h, y in batches:
        r = h - means[y]
        within.addmm_(r.T, r)
        spread.index_add_(0, y, r.square().sum(1))
        nearest = torch.cdist(h, means).argmin(1)
        differs += (nearest != (h @ weight.T).argmax(1)).sum()
        seen += len(h)
    middle = clock()
    M = means - means.mean(0)
    between = torch.linalg.pinv(M.T @ M / K, hermitian=True, rtol=1e-5)
    torch.trace(within / seen @ between) / K
    pairs = torch.cdist(means, means).square()
    v = spread / counts
    ((v[:, None] + v) / (2 * pairs)).fill_diagonal_(0).mean()
    _formulas(M, weight)
    return middle - start, clock() - middle


def in_memory(batches: Batches, weight: Tensor) -> tuple[float, float]:
    """All features in float64, then the formulas."""
    start = clock()
    held = [(h.double(), y) for h, y in batches]
    middle = clock()
    features, labels = torch.cat([h for h, _ in held]), torch.cat([y for _, y in held])
    stats = ClassStatistics.from_features(features, labels, len(weight))
    formulas.nc1(stats), formulas.cdnv(stats)
    _formulas(stats.centred, weight.double())
    formulas.nearest_mean(stats, features, labels).ne(formulas.decide(features, weight, None)).sum()
    return middle - start, clock() - middle


CONTENDERS = {f.__name__: f for f in (floor, ours, without_nc4, without_nc1, two_passes, in_memory)}


def run_one(name: str, N: int, d: int, K: int, repeats: int) -> None:
    """Print update and compute seconds (best of some) and the peak memory above the features."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(K, d, generator=generator)
    weight = torch.randn(K, d, generator=generator)
    batches = []
    for start in range(0, N, BATCH):
        # Classes in turn, so that already the warm-up sees all of them.
        y = torch.arange(start, min(start + BATCH, N)) % K
        batches.append((means[y] + 0.1 * torch.randn(len(y), d, generator=generator), y))
    # One warm-up on few batches pays for what the first call of anything costs.
    CONTENDERS[name](batches[: max(4, 2 * K // BATCH)], weight)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = [CONTENDERS[name](batches, weight)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    times += [CONTENDERS[name](batches, weight) for _ in range(repeats - 1)]
    update, compute = (min(column) for column in zip(*times, strict=True))
    print(update, compute, peak / 1024)


def main() -> None:
    """Run every contender on every shape, each in a process of its own so that peaks do not mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=5, metavar=("NAME", "N", "D", "K", "REPEATS"), help=argparse.SUPPRESS)
    parser.add_argument("--shapes", type=int, nargs="*", default=range(len(SHAPES)), help="indices of SHAPES")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one[0], *map(int, arguments.one[1:]))
        return
    for N, d, K in (SHAPES[i] for i in arguments.shapes):
        print(f"\nN={N}, d={d}, K={K}, batches of {BATCH}")
        print(f"{'':12} {'update s':>9} {'compute s':>9} {'sum/floor':>9} {'peak MiB':>9}")
        unit = 0.0
        for name in CONTENDERS:
            one = [name, str(N), str(d), str(K), str(arguments.repeats)]
            answer = subprocess.run(
                [sys.executable, __file__, "--one", *one], check=True, text=True, stdout=subprocess.PIPE
            )
            update, compute, peak = map(float, answer.stdout.split())
            unit = unit or update
            print(
                f"{name:12} {update:9.3f} {compute:9.4f} {(update + compute) / unit:9.2f} {peak:9.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
