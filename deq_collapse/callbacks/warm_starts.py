"""Warm starts: a training solve begins where that sample's last one ended, an epoch ago."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deq_collapse.callbacks.diagnostics import equilibrium_of
from deq_collapse.data.batches import TrainingBatches
from deq_collapse.errors import UserError
from deq_collapse.models.gradients import Unrolled


class WarmStarts(Callback):
    """Keeps the fixed point of every training sample, for a start that changes no fixed point.

    What a solve returns meets the same tolerance from any start, and measurements start as ever. It takes
    the memory of one state per training sample and rank, which is not part of a checkpoint: the first epoch
    after a resume starts cold. Does nothing for an explicit refinement.

    In a configuration: ``trainer: {callbacks: [{class_path: deq_collapse.callbacks.WarmStarts}]}``.
    """

    def __init__(self) -> None:
        self._states: Tensor | None = None
        self._batches: Sequence[Tensor] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a gradient mode whose steps begin at the cell's start by definition.

        Raises:
            UserError: for ``unrolled(k)``.
        """
        refinement = equilibrium_of(pl_module)
        if refinement is not None and isinstance(refinement.gradient, Unrolled):
            raise UserError(
                f"the gradient {refinement.gradient} takes its steps from the cell's start; warm starts are"
                " for ift, jfb and phantom(k, tau)."
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the order of the epoch before."""
        self._batches = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Hands over the states of these samples."""
        refinement = equilibrium_of(pl_module)
        if refinement is not None and self._states is not None:
            refinement.start = self._states[self._samples(trainer)]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps where they ended."""
        refinement = equilibrium_of(pl_module)
        if refinement is not None and refinement.state is not None:
            state, samples = refinement.state, self._samples(trainer)
            if self._states is None:
                count = len(_loader(trainer).data.labels)
                self._states = torch.full((count, *state.shape[1:]), torch.nan).to(state)
            self._states[samples] = state

    def _samples(self, trainer: Trainer) -> Tensor:
        """Positions in the data set of the batch given last."""
        loader = _loader(trainer)
        if self._batches is None:
            order = loader.sampler.indices().to(trainer.strategy.root_device)
            self._batches = torch.split(order, loader.batch_size)
        return self._batches[loader.state_dict()["batch"] - 1]


def _loader(trainer: Trainer) -> TrainingBatches:
    loader = trainer.train_dataloader
    assert isinstance(loader, TrainingBatches)
    return loader
