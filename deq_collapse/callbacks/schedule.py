"""When collapse is measured: after every epoch at first, then less and less often, and after the last."""

import math

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from deq_collapse import fit_end
from deq_collapse.errors import UserError
from deq_collapse.runs.files import SPLITS


class MeasurementSchedule(Callback):
    """Lets Lightning validate only after the epochs worth measuring.

    Collapse changes fastest at first and is plotted on a log axis, so later measurements thin out
    geometrically. The patience of ``EarlyStopping`` on a measure counts measurements, not epochs.

    Args:
        dense: number of first epochs that are all measured, at least 1.
        growth: factor between later measured epochs, at least 1; 1 measures all.
    """

    def __init__(self, dense: int = 20, growth: float = 1.1) -> None:
        if not (dense >= 1 and 1 <= growth < math.inf):
            raise UserError(
                f"a schedule needs dense >= 1 and growth >= 1, not dense={dense} and growth={growth}."
            )
        self.dense = dense
        self.growth = growth

    def epochs(self, last: int) -> frozenset[int]:
        """The epochs of 1..last after which to measure."""
        due, epoch = set(range(1, min(self.dense, last) + 1)) | {last}, self.dense
        while epoch < last:
            epoch = max(epoch + 1, round(epoch * self.growth))
            due.add(min(epoch, last))
        return frozenset(due)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets early stopping check a measure when it is taken, not an epoch later."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.monitor.partition("/")[0] in SPLITS:
                callback._check_on_train_epoch_end = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets it for the epoch that a run resumes in, which does not start again."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets whether this epoch ends with a validation."""
        epoch = trainer.current_epoch + 1
        last = fit_end.epochs_planned(trainer, trainer.num_training_batches)
        due = epoch in self.epochs(2 * epoch if last is None else last)
        # Lightning validates after epochs that this number divides.
        trainer.check_val_every_n_epoch = 1 if due else epoch + 1

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the trainer."""
        trainer.check_val_every_n_epoch = 1
