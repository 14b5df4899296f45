"""Unrolled pre-training: the first steps of training solve nothing (Bai, Koltun & Kolter, "Multiscale Deep
Equilibrium Models", NeurIPS 2020, whose option is called ``pretrain_steps``).
"""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from deq_collapse.callbacks.diagnostics import equilibrium_of
from deq_collapse.errors import UserError
from deq_collapse.models.gradients import Unrolled


class Pretraining(Callback):
    """Trains an equilibrium with the gradient ``unrolled(k)`` in its first steps, then with its own gradient.

    Whether a step is one of them depends on the number of steps made, so that a resumed run continues like an
    uninterrupted one. ``fit/forward_*`` does not include them, since it describes solves; measurements are at
    the fixed point throughout. The activation memory of a run is that of its first step, hence of k unrolled
    evaluations. Does nothing for an explicit refinement.

    In a configuration: ``conf/trainer/pretraining.yaml``.

    Args:
        steps: number of optimizer steps, at least 1.
        unrolled: k, number of evaluations of the cell in each step, at least 1.
    """

    def __init__(self, steps: int, unrolled: int) -> None:
        self.steps, self.gradient = steps, Unrolled(unrolled)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses numbers out of range; jsonargparse would reword an error raised by the constructor.

        Raises:
            UserError: for such a number.
        """
        if self.steps < 1:
            raise UserError(f"pre-training of {self.steps} steps is asked for, but it takes at least 1.")
        self.gradient.check()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a pre-training that takes up all of training.

        Raises:
            UserError: if no step is left.
        """
        steps = trainer.estimated_stepping_batches
        if equilibrium_of(pl_module) is not None and steps <= self.steps and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise UserError(
                f"pre-training takes {self.steps} steps, but all of training has {steps}: nothing would be"
                " solved in training."
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Chooses the gradient of this step."""
        refinement = equilibrium_of(pl_module)
        if refinement is not None:
            refinement.pretraining = self.gradient if trainer.global_step < self.steps else None
