"""Warm starts: fewer evaluations, the same fixed points."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from deq_collapse.callbacks import History, WarmStarts
from deq_collapse.errors import UserError
from deq_collapse.models import Cell, ConvCell, Equilibrium


class Against(Callback):
    """Whether each batch starts warm, and how far its end lies from that of a cold solve."""

    def __init__(self):
        self.warm, self.distance = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        refinement = pl_module.network.refinement
        self.warm.append(refinement.start is not None and not refinement.start.isnan().any())
        refinement.register_forward_pre_hook(lambda module, args: setattr(self, "h0", args[0].detach()))

    @torch.no_grad()
    def on_after_backward(self, trainer, pl_module):
        warm, cell = pl_module.network.refinement.state, pl_module.network.refinement.cell
        cold = Equilibrium(self.h0.shape[1:], lambda shape: cell, tol=1e-6, max_iter=100)
        cell.eval()  # no power iteration between the two solves
        cold(self.h0)
        cell.train()
        error, size = ((v.flatten(1).norm(dim=1)) for v in (cold.state - warm, cold.state))
        self.distance.append((error / size).max())


def test_solves_start_where_each_sample_ended_and_end_at_the_same_fixed_points(ready, tmp_path):
    watch = Against()
    run = ready(tmp_path / "new", epochs=2, watching=[WarmStarts(), watch])
    run.trainer.fit(run.module, run.data)
    batches = len(run.data.train_dataloader())
    assert watch.warm == [False] * batches + [True] * batches
    assert max(watch.distance) < 1e-3  # the tolerance over 1 - 0.9


class Tanh(Cell):
    def forward(self, z, h0):
        return (h0 + z / 2).tanh()


def test_each_samples_state_is_its_own(ready, tmp_path):
    """Where nothing is learnt, a warm solve is done at once: nobody got another one's state."""
    run = ready(tmp_path / "new", epochs=3, watching=[WarmStarts()])
    run.module.optimizer = partial(torch.optim.SGD, lr=0.0)
    network = run.module.network
    network.encoder = nn.Conv2d(1, 8, 3, stride=2, padding=1)
    network.refinement = Equilibrium((8, 4, 4), lambda shape: Tanh())
    run.trainer.fit(run.module, run.data)
    counts = run.callback(History).curve("fit", "forward_evaluations")
    assert counts[1] > 3
    assert counts[2] == counts[3] == 1


def test_unrolled_steps_start_at_the_cells_start(ready, tmp_path):
    run = ready(tmp_path / "new", epochs=1, watching=[WarmStarts()])
    run.module.network.refinement = Equilibrium((8, 4, 4), ConvCell, gradient="unrolled(5)")
    with pytest.raises(UserError, match="warm starts are"):
        run.trainer.fit(run.module, run.data)
