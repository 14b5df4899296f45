"""Prints the most memory, in accumulators, that counting and computing all default values but nc4 takes."""

from pathlib import Path

import torch

from deq_collapse.metrics import NeuralCollapse
from deq_collapse.metrics.neural_collapse import DEFAULT


def resident(field: str) -> int:
    """Resident memory of this process in bytes: now ("VmRSS") or its highest since it was reset ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure(K: int, d: int) -> float:
    """For K long-tailed classes of d features, in accumulators above the batches and a classifier."""
    draw = torch.Generator().manual_seed(0)
    weight, means = torch.randn(K, d, generator=draw), torch.randn(K, d, generator=draw)
    labels = torch.cat([torch.arange(n) for n in range(K // 20, K + 1, K // 20)])
    batches = [(means[y] + torch.randn(len(y), d, generator=draw), y) for y in labels.chunk(20)]
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    metric = NeuralCollapse(K, d, metrics=[name for name in DEFAULT if name != "nc4"])
    for h, y in batches:
        metric.update(h, y, weight)
    metric.compute()
    return (resident("VmHWM") - before) / (8 * (K * d + d * d))


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure(20, 40)  # the first call loads libraries
    print(measure(1000, 2048))
