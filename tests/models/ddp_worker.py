"""Two gloo ranks: each has half of a batch, and the first writes its gradients beside those of one process;
test_ddp.py runs it.
"""

import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from deq_collapse.models import (
    ConvCell,
    Equilibrium,
    LinearCell,
    MLPCell,
    MonotoneCell,
    MultiscaleCell,
)

CELLS = {cell.__name__: cell for cell in (ConvCell, LinearCell, MLPCell, MonotoneCell, MultiscaleCell)}
BATCH = 6


def equilibrium(name: str) -> tuple[nn.Module, torch.Tensor]:
    """One of a cell of that name, and a batch of H0."""
    torch.manual_seed(0)
    shape = (12,) if name in ("LinearCell", "MLPCell") else (3, 4, 4)
    refinement = Equilibrium(shape, partial(CELLS[name]), tol=1e-10, backward_tol=1e-10, max_iter=200)
    return refinement.double(), torch.randn(BATCH, *shape, dtype=torch.float64)


def gradients(module: nn.Module, h0: torch.Tensor) -> list[torch.Tensor]:
    """Of a loss that is the mean over samples."""
    module(h0).flatten(1).square().sum(1).mean().backward()
    return [parameter.grad for parameter in module.parameters()]


def rank_gradients(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", f"file://{folder}/rendezvous", timedelta(seconds=60), world_size=world, rank=rank
    )
    found = {}
    for name in CELLS:
        refinement, h0 = equilibrium(name)
        shared = gradients(DistributedDataParallel(refinement), h0.chunk(world)[rank])
        found[name] = shared, gradients(*equilibrium(name))
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    start_processes(rank_gradients, args=(2, Path(sys.argv[1])), nprocs=2, start_method="fork")
