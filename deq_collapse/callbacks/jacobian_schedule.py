"""A Jacobian term whose weight depends on the epoch (Bai et al., "Stabilizing Equilibrium Models by Jacobian
Regularization", 2021, raise it during training).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from deq_collapse.callbacks.diagnostics import equilibrium_of
from deq_collapse.errors import UserError


class JacobianSchedule(Callback):
    """Sets an equilibrium's ``jacobian_weight`` from the epoch alone, so that a resumed run continues like an
    uninterrupted one. Logs it as ``fit/jacobian_weight``; does nothing for an explicit refinement.

    In a configuration: ``conf/trainer/jacobian_schedule.yaml``.

    Args:
        weights: the weight at some completed epochs, e.g. ``{0: 0.0, 20: 1.0}``; linear in between, constant
            before the first and after the last. It replaces the refinement's own weight.
    """

    def __init__(self, weights: Mapping[int, float]) -> None:
        self.weights = dict(sorted(weights.items()))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses invalid weights; jsonargparse would reword an error raised by the constructor.

        Raises:
            UserError: for no weight at all, a weight below 0, and an epoch below 0.
        """
        weights = self.weights
        if not weights or min(weights) < 0 or not all(0 <= weight < math.inf for weight in weights.values()):
            raise UserError(
                f"the weights of a Jacobian schedule are {weights}, but they are one or more numbers of at"
                " least 0, each at a completed epoch of at least 0."
            )

    def weight(self, epoch: int) -> float:
        """The weight after ``epoch`` completed epochs."""
        return float(np.interp(epoch, list(self.weights), list(self.weights.values())))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Sets the epoch's weight with every batch, because a run may resume in the middle of an epoch."""
        refinement = equilibrium_of(pl_module)
        if refinement is not None:
            refinement.jacobian_weight = self.weight(trainer.current_epoch)
            if batch_idx == 0:
                options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": 1}
                pl_module.log("fit/jacobian_weight", refinement.jacobian_weight, **options)
