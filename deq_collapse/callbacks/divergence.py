"""Ends a run whose loss is no longer finite, and reports where that happened."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deq_collapse.callbacks.diagnostics import equilibrium_of
from deq_collapse.data import CollapseDataModule
from deq_collapse.data.batches import TrainingBatches
from deq_collapse.errors import Diverged

NAMED = 5
"""Largest number of images named."""


class Divergence(Callback):
    """Checks the loss of every batch before its backward pass; on all ranks, so that none waits."""

    def __init__(self) -> None:
        self._batch = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Notes the batch."""
        self._batch = batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Ends the run if the loss is not finite.

        Raises:
            Diverged: naming the step, images of the batch, and the residual of an equilibrium's solver.
        """
        finite = bool(torch.isfinite(loss.detach()))
        if trainer.world_size > 1:
            everywhere = trainer.strategy.reduce_boolean_decision(finite, all=True)
        else:
            everywhere = finite
        if everywhere:
            return
        words = f"the run diverged at step {trainer.global_step + 1}, in epoch {trainer.current_epoch + 1}:"
        words += f" the loss is {float(loss.detach()):g}"
        refinement = equilibrium_of(pl_module)
        solve = None if refinement is None else refinement.forward_solve
        if solve is not None:
            words += f", the solver's largest residual {float(solve.residual.detach().max()):.1e}"
        images = ", ".join(map(str, self._images(trainer)))
        raise Diverged(
            f"{words}; the batch has {images} and others of the source's training images."
            " A lower learning rate may help."
        )

    def _images(self, trainer: Trainer) -> list[int]:
        """The first images of the batch, by their position in the source's training split."""
        loader, data = trainer.train_dataloader, trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(loader, TrainingBatches)
        assert isinstance(data, CollapseDataModule)
        start = self._batch * loader.batch_size
        return data.indices[loader.sampler.indices()[start : start + NAMED].cpu()].tolist()
