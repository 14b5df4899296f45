"""One line of progress: which run, which epoch, train error and NC1."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from deq_collapse import fit_end


class RunProgress(ProgressBar):
    """Shows a live line on a terminal; elsewhere (a log file) a plain line at about every tenth of the run.

    Args:
        name: of the run.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.console = Console()
        self._bar: Progress | None = None
        self._enabled = True
        self._said = 0

    def enable(self) -> None:
        """Shows progress (Lightning calls this)."""
        self._enabled = True

    def disable(self) -> None:
        """Shows nothing (Lightning calls this on all ranks but the first)."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the line."""
        if not (self._enabled and self.console.is_terminal):
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        last = fit_end.epochs_planned(trainer, trainer.num_training_batches)
        self._bar.add_task(self.name, total=last, completed=trainer.current_epoch, values="")
        self._bar.start()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Updates the line."""
        epoch = trainer.current_epoch + 1
        last = fit_end.epochs_planned(trainer, trainer.num_training_batches) or 0
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=epoch, values=_values(trainer.callback_metrics))
        elif self._enabled and (epoch == 1 or epoch == last or epoch - self._said >= last / 10):
            self._said = epoch
            far = f"{epoch}/{last}" if last else epoch
            print(f"{self.name}  epoch {far}  {_values(trainer.callback_metrics)}", flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the line."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restores the terminal."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _values(metrics: dict[str, Any]) -> str:
    error, nc1 = metrics.get("train/error"), metrics.get("train/nc1")
    return "" if error is None or nc1 is None else f"train error {float(error):.4f}  NC1 {float(nc1):.3g}"
