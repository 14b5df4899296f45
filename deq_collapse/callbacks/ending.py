"""How a fit ends: whatever ends it, its final weights are measured, and what ended it is noted."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from deq_collapse import fit_end
from deq_collapse.callbacks.averaging import check_averaging, moved_since_measured
from deq_collapse.callbacks.history import History
from deq_collapse.callbacks.whole import check_whole


class Ending(Checkpoint):
    """Measures once more where the last measurement is not of the final weights, or left a split out.

    A fit may end amid an epoch (``max_steps``, ``max_time``), or after an epoch that was not to be measured
    (``EarlyStopping``), and an average of weights may move after it was measured. In the record of callbacks
    it stands before what saves the last checkpoint, which then holds the final measures.

    It is a ``Checkpoint`` for its place alone: Lightning calls these after everything that may end a fit.

    Attributes:
        by: what ended the fit; ``None`` while it goes on.
        epochs: that have ended, of which the last may have been cut short.
        whole_epochs: of these, the ones that had all their batches.
    """

    def __init__(self) -> None:
        self.by: str | None = None
        self.epochs = self.whole_epochs = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what would measure a part of a split only, or other weights than the final ones.

        Raises:
            UserError: see `check_whole` and `check_averaging`.
        """
        check_whole(trainer)
        check_averaging(trainer.callbacks)  # type: ignore[attr-defined]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was killed after its last checkpoint, before its record, does not train on."""
        place = Path(trainer.ckpt_path or "").resolve().parent
        if self.by in (fit_end.EARLY, fit_end.STOPPED) and place == Path(trainer.default_root_dir).resolve():
            trainer.should_stop = True  # a limit that ended it is still there by itself

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures the final weights, and notes what ended the fit."""
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
        """What is noted."""
        return {"by": self.by, "epochs": self.epochs, "whole_epochs": self.whole_epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.by, self.epochs, self.whole_epochs = (
            state_dict[name] for name in ("by", "epochs", "whole_epochs")
        )


def _measure(trainer: Trainer) -> None:
    """What Lightning does after the last batch of an epoch that is measured."""
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped -= 1  # loggers count the measures to the step that was
    trainer.validating = True
    loop.val_loop.run()
    trainer.training = True
    loop._batches_that_stepped += 1
