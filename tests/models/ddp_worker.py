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
from deq_collapse.models.batch_norm import BatchNormOverRanks

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


def normalised(layer: nn.Module, x: torch.Tensor, part: slice, low: bool) -> dict[str, torch.Tensor]:
    """What a layer makes of its part of a batch, and the gradients of a loss over it."""
    x = x[part].clone().requires_grad_()
    weights = torch.linspace(0.5, 2, x[0].numel(), dtype=x.dtype).view_as(x[0])
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        out = layer(x.bfloat16() if low else x)
    (out.double() * weights).square().sum().backward()
    return {
        "out": out.detach(),
        "dx": x.grad,
        "dweight": layer.weight.grad,
        "mean": layer.running_mean.clone(),
        "var": layer.running_var.clone(),
    }


def batch_norms(rank: int, low: bool) -> dict[str, list[torch.Tensor]]:
    """Each value of a batch normalisation over ranks of unequal batches, and that of the whole batch."""
    torch.manual_seed(0)
    x = torch.randn(5, 3, 4, 4, dtype=torch.float32 if low else torch.float64)
    parts = slice(0, 2), slice(2, 5)
    ours, whole = (nn.BatchNorm2d(3, dtype=x.dtype) for _ in range(2))
    ours.__class__ = BatchNormOverRanks
    found, expected = normalised(ours, x, parts[rank], low), normalised(whole, x, slice(0, 5), low)
    dist.all_reduce(found["dweight"])
    expected |= {name: expected[name][parts[rank]] for name in ("out", "dx")}
    return {name: [found[name], expected[name]] for name in found}


def rank_gradients(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", f"file://{folder}/rendezvous", timedelta(seconds=60), world_size=world, rank=rank
    )
    found = {}
    for name in CELLS:
        refinement, h0 = equilibrium(name)
        shared = gradients(DistributedDataParallel(refinement), h0.chunk(world)[rank])
        found[name] = shared, gradients(*equilibrium(name))
    normed = {low: batch_norms(rank, low) for low in (False, True)}
    torch.save(normed, folder / f"normed-{rank}.pt")
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    start_processes(rank_gradients, args=(2, Path(sys.argv[1])), nprocs=2, start_method="fork")
