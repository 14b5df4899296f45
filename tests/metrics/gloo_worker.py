"""A gloo pool: every rank measures its shard of every job and what it sent; test_distributed.py runs it."""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes
from torchmetrics.utilities.distributed import gather_all_tensors

from deq_collapse.metrics import NeuralCollapse


def measure(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", f"file://{folder}/rendezvous", timedelta(seconds=60), world_size=world, rank=rank
    )
    groups = {size: dist.new_group(list(range(size))) for size in range(1, world + 1)}
    results = []
    for job in torch.load(folder / "jobs.pt"):
        shards = job["shards"]
        if rank >= len(shards):
            results.append(None)
            continue
        sent = []

        def gather(tensor: torch.Tensor, group: object, sent: list[int] = sent) -> list[torch.Tensor]:
            sent.append(tensor.nbytes)
            return gather_all_tensors(tensor, group)

        metric = NeuralCollapse(**job["arguments"], process_group=groups[len(shards)], dist_sync_fn=gather)
        features, labels = shards[rank]
        if len(features):
            for h, y in zip(features.split(50), labels.split(50), strict=True):
                metric.update(h, y, *job["classifier"])
        values = metric.compute()
        own = int(metric.moments[: metric.num_classes].sum())
        results.append({"values": values, "classes": metric.class_values(), "sent": sum(sent), "own": own})
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    # A fresh process may fork: the ranks share one import of torch, and no thread has been started yet.
    size = int(sys.argv[1])
    start_processes(measure, (size, Path(sys.argv[2])), nprocs=size, start_method="fork")
