"""The end of a fit: whatever ends it, its final weights are measured, and the reason is recorded."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from deq_collapse import fit_end
from deq_collapse.callbacks.averaging import check_averaging, moved_since_measured
from deq_collapse.callbacks.history import History
from deq_collapse.callbacks.whole import check_whole


class Ending(Checkpoint):
    """Measures once more if the last measurement is not of the final weights, or left out a split.

    A fit may end during an epoch (``max_steps``, ``max_time``), or after an epoch without a measurement
    (``EarlyStopping``), and an average of weights may change after it was measured. This callback comes
    before the one that saves the last checkpoint, which then holds the final measures.

    It is a ``Checkpoint`` only for its position: Lightning calls these after everything that may end a fit.

    Attributes:
        by: what ended the fit; ``None`` while it runs.
        epochs: number of epochs that have ended, including a last one cut short.
        whole_epochs: number of these that had all their batches.
    """

    def __init__(self) -> None:
        self.by: str | None = None
        self.epochs = self.whole_epochs = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses options that would measure only part of a split, or weights other than the final ones.

        Raises:
            UserError: see `check_whole` and `check_averaging`.
        """
        check_whole(trainer)
        check_averaging(trainer.callbacks)  # type: ignore[attr-defined]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps a run that was killed between its last checkpoint and its record from training on."""
        place = Path(trainer.ckpt_path or "").resolve().parent
        if self.by in (fit_end.EARLY, fit_end.STOPPED) and place == Path(trainer.default_root_dir).resolve():
            trainer.should_stop = True  # a limit that ended it applies again by itself

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures the final weights and records what ended the fit."""
        self.epochs = trainer.current_epoch + 1
        self.whole_epochs = trainer.current_epoch + fit_end.is_whole(trainer)
        over = trainer.strategy.reduce_boolean_decision(fit_end.is_over(trainer), all=False)
        if trainer.fast_dev_run or not over:  # type: ignore[attr-defined]
            return
        self.by = fit_end.why(trainer)
        history = next(callback for callback in trainer.callbacks if isinstance(callback, History))  # type: ignore[attr-defined]
        if not history.measured(trainer.global_step) or moved_since_measured(trainer):
            _measure(trainer)
            history.add_measures(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The attributes."""
        return {"by": self.by, "epochs": self.epochs, "whole_epochs": self.whole_epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a checkpoint."""
        self.by, self.epochs, self.whole_epochs = (
            state_dict[name] for name in ("by", "epochs", "whole_epochs")
        )


def _measure(trainer: Trainer) -> None:
    """Does what Lightning does after the last batch of an epoch with a measurement."""
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped -= 1  # loggers assign the measures to the last step
    trainer.validating = True
    loop.val_loop.run()
    trainer.training = True
    loop._batches_that_stepped += 1
