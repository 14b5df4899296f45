"""Time and memory of NeuralCollapse beside two float32 passes, all features in memory, and the GEMM floor.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_metrics.py

Peaks are read from /proc, hence on Linux.
"""

import argparse
import subprocess
import sys
import time

import torch
from resident import reset, resident
from torch import Tensor

from deq_collapse.metrics import COSTLY, TABLE, ClassStatistics, NeuralCollapse
from deq_collapse.metrics import functional as formulas

Batches = list[tuple[Tensor, Tensor]]
Seconds = tuple[float, float, float]
"""Of updates, of compute, and of the pass over kept samples that compute needs besides."""
BATCH = 512
# CPU seconds of the one thread: other processes of the machine distort them less than the wall clock.
clock = time.process_time
SHAPES = [(50_000, 512, 10), (50_000, 512, 100), (50_000, 512, 1000), (50_000, 2048, 1000)]


def floor(batches: Batches, weight: Tensor) -> Seconds:
    """The one float32 GEMM that a pooled covariance needs."""
    start = clock()
    total = torch.zeros(weight.shape[1], weight.shape[1])
    for h, _ in batches:
        total.addmm_(h.T, h)
    return clock() - start, 0.0, 0.0


class Timed(NeuralCollapse):
    """Notes the time of the pass over the samples that were kept."""

    samples_seconds = 0.0

    def count_held(self, stats: ClassStatistics, spread: bool) -> Tensor:
        start = clock()
        tally = super().count_held(stats, spread)
        self.samples_seconds = clock() - start
        return tally


def ours(batches: Batches, weight: Tensor, without: tuple[str, ...] = ()) -> Seconds:
    """One pass with float64-grade sums, NC1-NC4, CDNV, SELI, GOF and all else that is given by default."""
    wanted = [name for name in TABLE if name not in (*COSTLY, *without)]
    metric = Timed(*weight.shape, metrics=wanted)
    start = clock()
    for h, y in batches:
        metric.update(h, y, weight)
    middle = clock()
    metric.compute()
    return middle - start, clock() - middle - metric.samples_seconds, metric.samples_seconds


def without_nc4(batches: Batches, weight: Tensor) -> Seconds:
    """All but NC4, hence no feature is kept, and NC1 comes from a (d, d) matrix."""
    return ours(batches, weight, without=("nc4",))


def without_nc1(batches: Batches, weight: Tensor) -> Seconds:
    """All but NC4 and NC1, hence neither features nor a (d, d) matrix."""
    return ours(batches, weight, without=("nc4", "nc1"))


def _formulas(means: Tensor, weight: Tensor) -> None:
    for gram in (means @ means.T, weight @ weight.T):
        formulas.angle_deviation(gram), formulas.etf_distance(gram)
    formulas.norm_variation(means), formulas.norm_variation(weight)
    formulas.nc3(weight, means), formulas.nc3_product(weight @ means.T)


def two_passes(batches: Batches, weight: Tensor) -> Seconds:
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
    return middle - start, clock() - middle, 0.0


def in_memory(batches: Batches, weight: Tensor) -> Seconds:
    """All features in float64, then the formulas."""
    start = clock()
    held = [(h.double(), y) for h, y in batches]
    middle = clock()
    features, labels = torch.cat([h for h, _ in held]), torch.cat([y for _, y in held])
    stats = ClassStatistics.from_features(features, labels, len(weight))
    formulas.nc1(stats), formulas.cdnv(stats)
    _formulas(stats.centred, weight.double())
    formulas.nearest_mean(stats, features, labels).ne(formulas.decide(features, weight, None)).sum()
    return middle - start, clock() - middle, 0.0


CONTENDERS = {f.__name__: f for f in (floor, ours, without_nc4, without_nc1, two_passes, in_memory)}


def run_one(name: str, N: int, d: int, K: int, repeats: int, noise: float) -> None:
    """Print seconds (best of some) and the peak memory in MiB above the features."""
    torch.set_num_threads(1)
    contender, generator = CONTENDERS[name], torch.Generator().manual_seed(0)

    def made(N: int, means: Tensor) -> Batches:
        batches = []
        for start in range(0, N, BATCH):
            y = torch.arange(start, min(start + BATCH, N)) % len(means)
            batches.append((means[y] + noise * torch.randn(len(y), means.shape[1], generator=generator), y))
        return batches

    # A small run pays for what the first call of anything costs; memory is that of the first run in full.
    contender(made(100, torch.randn(4, 16)), torch.randn(4, 16))
    means, weight = (torch.randn(K, d, generator=generator) for _ in range(2))
    batches = made(N, means)
    before = resident("VmRSS")
    reset()
    contender(batches, weight)
    peak = resident("VmHWM") - before
    times = [contender(batches, weight) for _ in range(repeats)]
    print(*(min(column) for column in zip(*times, strict=True)), peak / 1024)


def main() -> None:
    """Run every contender on every shape, each in a process of its own so that peaks do not mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--shapes", type=int, nargs="*", default=range(len(SHAPES)), help="indices of SHAPES")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS))
    parser.add_argument(
        "--noise", type=float, default=0.1, help="of the features, whose means have a norm of sqrt(d)"
    )
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, *SHAPES[arguments.shapes[0]], arguments.repeats, arguments.noise)
        return
    for shape in arguments.shapes:
        N, d, K = SHAPES[shape]
        accumulator = 8 * (K * d + d * d) / 2**20
        print(f"\nN={N}, d={d}, K={K}, batches of {BATCH}, noise {arguments.noise}; ", end="")
        print(f"an accumulator is {accumulator:.1f} MiB, the kept features are {4 * N * d / 2**20:.0f}")
        print(f"{'':12} {'update s':>9} {'compute s':>9} {'samples s':>9} {'sum/floor':>9} {'peak MiB':>9}")
        unit = 0.0
        for name in arguments.contenders:
            command = [sys.executable, __file__, "--one", name, "--shapes", str(shape)]
            options = ["--repeats", str(arguments.repeats), "--noise", str(arguments.noise)]
            answer = subprocess.run(command + options, check=True, text=True, stdout=subprocess.PIPE)
            *seconds, peak = map(float, answer.stdout.split())
            unit = unit or sum(seconds)
            times = f"{seconds[0]:9.3f} {seconds[1]:9.4f} {seconds[2]:9.4f} {sum(seconds) / unit:9.2f}"
            print(f"{name:12} {times} {peak:9.0f}", flush=True)


if __name__ == "__main__":
    main()
