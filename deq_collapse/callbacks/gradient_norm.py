"""How long the gradients of training are, epoch by epoch."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from deq_collapse.errors import UserError


class GradientNorm(Callback):
    """Logs the Euclidean norm of the gradient of all weights, before it is clipped: ``fit/gradient_norm``,
    its mean over the epoch's steps, ``fit/gradient_norm_max``, the largest, and ``fit/gradient_longer``, the
    share of steps, from 0 to 1, in which it is above ``length``.

    The exact gradient of a fixed point has no bound where the Jacobian comes near 1, an approximate one has;
    so two networks under one rate may take steps of different lengths. The norms tell at which length a clip
    (``trainer.gradient_clip_val``) would bite. Of several ranks it is the averaged gradient's. Training is
    not changed. Under 16-mixed, a step that overflows, and that the scaler skips, counts as infinite.

    In a configuration: ``conf/trainer/gradient_norm.yaml``.

    Args:
        length: above 0.
    """

    def __init__(self, length: float = 1.0) -> None:
        self.length = length

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a length of nothing; jsonargparse would reword an error raised by the constructor.

        Raises:
            UserError: for a length of 0 or less.
        """
        if not self.length > 0:
            raise UserError(f"the length of GradientNorm is {self.length:g}, but it is a number above 0.")

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Adds the norm of the step, which Lightning has unscaled by now, and clips afterwards."""
        gradients: list[Tensor] = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = get_total_norm(gradients)
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": 1, "sync_dist": True}
        pl_module.log("fit/gradient_norm", norm, **options)
        pl_module.log("fit/gradient_norm_max", norm, reduce_fx="max", **options)
        pl_module.log("fit/gradient_longer", (norm > self.length).float(), **options)
