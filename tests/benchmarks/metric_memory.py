"""Prints the most memory, in accumulators, that counting and computing all default values but nc4 takes."""

import torch
from resident import reset, resident

from deq_collapse.metrics import NeuralCollapse
from deq_collapse.metrics.neural_collapse import DEFAULT


def measure(K: int, d: int) -> float:
    """For K long-tailed classes of d features, in accumulators above the batches and a classifier."""
    draw = torch.Generator().manual_seed(0)
    weight, means = torch.randn(K, d, generator=draw), torch.randn(K, d, generator=draw)
    labels = torch.cat([torch.arange(n) for n in range(K // 20, K + 1, K // 20)])
    batches = [(means[y] + torch.randn(len(y), d, generator=draw), y) for y in labels.chunk(20)]
    before = resident("VmRSS")
    reset()
    metric = NeuralCollapse(K, d, metrics=[name for name in DEFAULT if name != "nc4"])
    for h, y in batches:
        metric.update(h, y, weight)
    metric.compute()
    return 1024 * (resident("VmHWM") - before) / (8 * (K * d + d * d))


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure(20, 40)  # the first call loads libraries
    print(measure(1000, 2048))
