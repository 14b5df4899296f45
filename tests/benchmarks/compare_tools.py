"""The same values and times from NeuralCollapse, a public tool, and plain two-pass code, side by side.

OMP_NUM_THREADS=1 python tests/benchmarks/compare_tools.py

The public tool is neural_collapse (pip install git+https://github.com/rhubarbwu/neural-collapse): it has no
columns where it cannot be imported. Tables are Markdown, for docs/compared.md.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from deq_collapse.metrics import NeuralCollapse

try:
    from neural_collapse import accumulate, measure
except ImportError:
    accumulate = measure = None

NAMES = ["nc1", "nc1_trace_ratio", "cdnv", "nc2_etf_means", "nc3_product", "nc4"]
Batches = list[tuple[Tensor, Tensor]]
Values = dict[str, float]
Tool = Callable[[Batches, Tensor, Tensor], Values]
BATCH = 512


def ours(batches: Batches, weight: Tensor, bias: Tensor, names: list[str] | None = None) -> Values:
    """One pass, in the type features come in; every default value but where names are given."""
    metric = NeuralCollapse(*weight.shape, metrics=names)
    for h, y in batches:
        metric.update(h, y, weight, bias)
    return {name: float(value) for name, value in metric.compute().items()}


def peer(batches: Batches, weight: Tensor, bias: Tensor, dtype: torch.dtype = torch.float32) -> Values:
    """neural_collapse as its page says: means in one pass, all else in a second. It knows no bias."""
    size = (*weight.shape, "cpu", dtype)
    means = accumulate.MeanAccumulator(*size)
    for h, y in batches:
        means.accumulate(h, y)
    M, middle = means.compute()
    within, norms, decisions = (
        accumulate.CovarAccumulator(*size, M=M),
        accumulate.VarNormAccumulator(*size, M=M),
        accumulate.DecAccumulator(*size, M=M, W=weight),
    )
    decisions.create_index(M)
    for h, y in batches:
        within.accumulate(h.to(dtype), y, M)
        norms.accumulate(h.to(dtype), y, M)
        decisions.accumulate(h, y, weight, *([] if decisions.index else [M]))
    covariance = within.compute()
    return {
        "nc1": measure.covariance_ratio(covariance, M, middle),
        "nc1_trace_ratio": measure.covariance_ratio(covariance, M, middle, "quotient"),
        "cdnv": measure.variability_cdnv(norms.compute()[0], M),
        "nc2_etf_means": measure.simplex_etf_error(M, middle),
        "nc3_product": measure.self_duality_error(weight.to(dtype), M, middle),
        "nc4": 1 - measure.clf_ncc_agreement(decisions),
    }


def two_passes(batches: Batches, weight: Tensor, bias: Tensor) -> Values:
    """NumPy in float64, each formula from its definition, over the classes that have samples."""
    h, y = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    h, W, b = h.astype(np.float64), weight.double().numpy(), bias.double().numpy()
    seen = np.unique(y)
    means = np.stack([h[y == c].mean(0) for c in seen])
    means = np.stack([m + (h[y == c] - m).mean(0) for m, c in zip(means, seen, strict=True)])
    r, K = h - means[np.searchsorted(seen, y)], len(seen)
    M = means - means.mean(0)
    _, roots, directions = np.linalg.svd(M, full_matrices=False)
    kept = [i for i in range(min(K - 1, h.shape[1])) if roots[i] > 1e-13 * np.abs(means).max()]
    v = np.array([(r[y == c] ** 2).sum(1).mean() for c in seen])
    apart = np.array([[((p - q) ** 2).sum() for q in means] for p in means])
    pairs = apart > (1e-13 * np.abs(means).max()) ** 2
    nearest = np.concatenate([((x[:, None] - means) ** 2).sum(-1).argmin(1) for x in np.array_split(h, 200)])
    etf = (np.eye(K) - 1 / K) / np.sqrt(K - 1)

    def error(gram: np.ndarray) -> float:
        return float(np.linalg.norm(gram / np.linalg.norm(gram) - etf))

    return {
        "nc1": sum(float(((r @ directions[i]) ** 2).mean() / roots[i] ** 2) for i in kept),
        "nc1_trace_ratio": float((r**2).sum() / len(h) / (M**2).sum() * K),
        "cdnv": float(((v[:, None] + v)[pairs] / apart[pairs] / 2).mean()),
        "nc2_etf_means": error(M @ M.T),
        "nc3_product": error(W[seen] @ M.T),
        "nc4": float((seen[nearest] != (h @ W.T + b).argmax(1)).mean()),
    }


def features(
    counts: list[int], d: int, noise: float, norm: float = 1.0, near: float = 1.0, offset: float = 0.0
) -> Batches:
    """Float32 batches; the last two class means are brought to `near` of their distance."""
    generator = torch.Generator().manual_seed(0)
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=generator)]
    means = torch.randn(len(counts), d, generator=generator, dtype=torch.float64) / d**0.5
    means[-1] = means[-2] + near * (means[-1] - means[-2])
    spread = torch.randn(len(y), d, generator=generator, dtype=torch.float64) / d**0.5
    h = (norm * (means[y] + noise * spread) + offset).float()
    return list(zip(h.split(BATCH), y.split(BATCH), strict=True))


CASES = {
    "early in training": features([300] * 10, 64, 1.0),
    "collapsed, means of norm 100": features([300] * 10, 64, 1e-4, norm=100.0),
    "collapsed, far from the origin": features([300] * 10, 64, 1e-3, offset=20.0),
    "long tail": features([800, 400, 200, 100, 50, 25, 12, 6, 3, 2], 64, 0.5),
    "a class without samples": features([300] * 9 + [0], 64, 0.3),
    "two means almost coincide": features([300] * 10, 64, 1e-3, near=1e-3),
    "more classes than dimensions": features([100] * 30, 16, 0.3),
}


def tools() -> dict[str, Tool]:
    """Those there are, by their titles."""
    found: dict[str, Tool] = {"NeuralCollapse": lambda *x: ours(*x, NAMES)}
    if accumulate is not None:
        found["neural_collapse, float32"] = peer
        found["neural_collapse, float64"] = lambda *x: peer(*x, torch.float64)
    return found


def print_values() -> None:
    """Of every case, the values in float64 and the relative error of each tool.

    The classifier decides like the nearest mean, which takes a bias.
    """
    print("| case | value | two passes, float64 |", *(f"{title} |" for title in tools()))
    print("|---|---|---|" + "---|" * len(tools()))
    for case, batches in CASES.items():
        h, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        K = 10 if case != "more classes than dimensions" else 30
        rows = [h[y == c].double().mean(0) if (y == c).any() else h[0].double() for c in range(K)]
        weight = torch.stack(rows).float()
        bias = -weight.square().sum(1) / 2
        expected = two_passes(batches, weight, bias)
        found = [attempt(tool, batches, weight, bias) for tool in tools().values()]
        for name, value in expected.items():
            cells = (deviation(values.get(name), value) for values in found)
            print(f"| {case} | `{name}` | {value:.6g} |", *(f"{cell} |" for cell in cells))


def attempt(tool: Callable[..., Values], *arguments: object) -> Values:
    """The values, or none where the tool fails."""
    try:
        return tool(*arguments)
    except (AssertionError, RuntimeError, IndexError, ValueError):
        return {}


def deviation(found: float | None, expected: float) -> str:
    """A relative error, or the value where that says more."""
    if found is None:
        return "fails"
    if found == expected:
        return "exact"
    if not np.isfinite(found) or expected == 0 or abs(found / expected - 1) > 0.1:
        return f"**{found:.6g}**"
    return f"{abs(found / expected - 1):.0e}"


def print_times(samples: int, width: int, rounds: int) -> None:
    """CPU seconds of the one thread over those of the one float32 product X^T X, models left out.

    Every round times the product and then each tool, hence a busy machine slows both sides of a ratio; cells
    are the median of the rounds' ratios, and the lowest and highest.
    """
    others = list(tools())[1:]
    print("| K | X^T X, s | NeuralCollapse, every default value |", *(f"{x}, six values |" for x in others))
    print("|---|---|---|" + "---|" * len(others))
    torch.set_num_threads(1)
    for K in (10, 100, 1000):
        batches, weight = timed_features(samples, width, K)
        bias = torch.zeros(K)
        runs = [floor, lambda *x: ours(*x), *list(tools().values())[1:]]
        for run in runs:
            run(batches[:2], weight, bias)  # what the first call of anything costs
        seconds = np.array([[cpu_seconds(run, batches, weight, bias) for run in runs] for _ in range(rounds)])
        ratios = seconds[:, 1:] / seconds[:, :1]
        cells = (f"{np.median(r):.2f} ({r.min():.2f} to {r.max():.2f}) |" for r in ratios.T)
        print(f"| {K} | {np.median(seconds[:, 0]):.2f} |", *cells, flush=True)


def timed_features(samples: int, width: int, K: int) -> tuple[Batches, Tensor]:
    """Batches of K classes of equally many samples, and a classifier."""
    generator = torch.Generator().manual_seed(0)
    means, weight = (torch.randn(K, width, generator=generator) for _ in range(2))
    batches = []
    for start in range(0, samples, BATCH):
        y = torch.arange(start, min(start + BATCH, samples)) % K
        batches.append((means[y] + 0.1 * torch.randn(len(y), width, generator=generator), y))
    return batches, weight


def cpu_seconds(tool: Tool, batches: Batches, weight: Tensor, bias: Tensor) -> float:
    """CPU seconds of a call, which other processes of the machine distort less than the wall clock."""
    start = time.process_time()
    tool(batches, weight, bias)
    return time.process_time() - start


def floor(batches: Batches, weight: Tensor, bias: Tensor) -> Values:
    """The product that a pooled covariance needs."""
    total = torch.zeros(weight.shape[1], weight.shape[1])
    for h, _ in batches:
        total.addmm_(h.T, h)
    return {}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print_values()
    print()
    print_times(arguments.samples, arguments.width, arguments.rounds)


if __name__ == "__main__":
    main()
