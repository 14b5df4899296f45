"""One line of progress: which run, which epoch, how far within it, train error and NC1."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from deq_collapse import fit_end

SILENCE = 600.0
"""Seconds after which a log file gets a line within an epoch, too."""


class NameColumn(TextColumn):
    """The name of a line; gives way, as the bar does, to the columns of numbers on a narrow terminal."""

    def __init__(self) -> None:
        super().__init__("{task.description}", table_column=Column())

    def render(self, task: Task) -> Text:
        """The name on one line, its end left out where there is no room."""
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class RunProgress(ProgressBar):
    """Shows a live line on a terminal; elsewhere (a log file) a plain line at about every tenth of the run,
    and within an epoch after every `SILENCE`.

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
        self._quiet_since = time.monotonic()

    def enable(self) -> None:
        """Shows progress (Lightning calls this)."""
        self._enabled = True

    def disable(self) -> None:
        """Shows nothing (Lightning calls this on all ranks but the first)."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the line."""
        self._quiet_since = time.monotonic()
        if not (self._enabled and self.console.is_terminal):
            return
        self._bar = Progress(
            NameColumn(),
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[within]}"),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            speed_estimate_period=3600,  # an epoch and its measurement go at different speeds
        )
        last = fit_end.epochs_planned(trainer, trainer.num_training_batches)
        self._bar.add_task(self.name, total=last, completed=trainer.current_epoch, within="", values="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Says how many batches of the epoch are done."""
        done, batches = batch_idx + 1, trainer.num_training_batches
        self._within(trainer, done / batches, f"trained {done}/{batches}")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Says how many batches of all splits are measured."""
        batches = trainer.num_val_batches
        done = sum(batches[:dataloader_idx]) + batch_idx + 1
        self._within(trainer, 1.0, f"measured {done}/{sum(batches)}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Updates the line."""
        epoch = trainer.current_epoch + 1
        last = fit_end.epochs_planned(trainer, trainer.num_training_batches) or 0
        if self._bar is not None:
            values = _values(trainer.callback_metrics)
            self._bar.update(self._bar.task_ids[0], completed=epoch, within="", values=values)
        elif self._enabled and (epoch == 1 or epoch == last or epoch - self._said >= last / 10):
            self._said = epoch
            self._print(f"{epoch}/{last}" if last else f"{epoch}", _values(trainer.callback_metrics))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the line."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restores the terminal."""
        self._stop()

    def _within(self, trainer: Trainer, share: float, words: str) -> None:
        """Updates the line with the trained share of the epoch."""
        if self._bar is not None:
            completed = trainer.current_epoch + 0.99 * share  # the clock of a full bar stands still
            self._bar.update(self._bar.task_ids[0], completed=completed, within=words)
        elif self._enabled and time.monotonic() - self._quiet_since >= SILENCE:
            self._print(f"{trainer.current_epoch + 1}", words)

    def _print(self, epoch: str, words: str) -> None:
        self._quiet_since = time.monotonic()
        print(f"{self.name}  epoch {epoch}  {words}", flush=True)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _values(metrics: dict[str, Any]) -> str:
    error, nc1 = metrics.get("train/error"), metrics.get("train/nc1")
    return "" if error is None or nc1 is None else f"train error {float(error):.4f}  NC1 {float(nc1):.3g}"
