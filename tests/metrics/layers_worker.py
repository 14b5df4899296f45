"""Gloo ranks that measure along a computation, each its own batches; test_layers.py runs it."""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

from deq_collapse.metrics import LayerwiseCollapse


def measure(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", f"file://{folder}/rendezvous", timedelta(seconds=60), world_size=world, rank=rank
    )
    job = torch.load(folder / "job.pt", weights_only=False)
    model = job["model"]
    with LayerwiseCollapse(model, ["encoder", "block"], **job["arguments"]) as layers:
        for x, labels, calls in job["shards"][rank]:
            z = model["encoder"](x)
            for _ in range(calls):
                z = model["block"](z)
            layers.update(labels, *job["classifier"])
    points = [[(p.module, p.call, p.values) for p in layers.compute()] for _ in range(2)]
    torch.save(points, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    size = int(sys.argv[1])
    start_processes(measure, (size, Path(sys.argv[2])), nprocs=size, start_method="fork")
