"""All logged values of all epochs, as one tidy table beside the run."""

import math
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer

from deq_collapse.runs.files import SPLITS
from deq_collapse.runs.history import COLUMNS, write_history


class History(Callback):
    """Writes ``history.csv``: epoch, step, split, metric, value; one row per value.

    Epochs are completed ones: 1 is after the first. The step is that of the measured weights: a measurement
    during an epoch has an earlier step than the end of the epoch. The table is part of the checkpoint, so a
    killed run continues with exactly the rows that belong to its weights.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, str, str, float]] = []
        self._measured_at: int | None = None
        self._learning_rate = math.nan

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier fit."""
        self._learning_rate = math.nan

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Notes the learning rate before the first step, because the schedule has changed it when the epoch
        ends; a run that resumes within an epoch does not start that epoch.
        """
        if math.isnan(self._learning_rate):
            self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets earlier measures: a value not measured now is missing."""
        for name in list(trainer.callback_metrics):
            if name.partition("/")[0] in SPLITS:
                del trainer.callback_metrics[name]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes that this epoch has new measures, and the step of their weights."""
        if not trainer.sanity_checking:
            self._measured_at = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the epoch's values and rewrites the table."""
        step = trainer.global_step
        self._add(trainer, {"fit": step} | dict.fromkeys(SPLITS, self._measured_at))
        self.rows.append((trainer.current_epoch + 1, step, "fit", "learning_rate", self._learning_rate))
        self._measured_at, self._learning_rate = None, math.nan
        self._write(trainer)

    def add_measures(self, trainer: Trainer) -> None:
        """Adds measures taken after the epoch's values, in place of earlier ones of these weights; rewrites
        the table.
        """
        step = self._measured_at
        self.rows = [row for row in self.rows if not (row[1] == step and row[2] in SPLITS)]
        self._add(trainer, dict.fromkeys(SPLITS, self._measured_at))
        self._measured_at = None
        self._write(trainer)

    def measured(self, step: int) -> bool:
        """Whether the weights after a step were measured, on the training split and on the test split."""
        return {"train", "test"} <= {split for _, its_step, split, _, _ in self.rows if its_step == step}

    def _add(self, trainer: Trainer, steps: Mapping[str, int | None]) -> None:
        """Adds the values of splits with a step, unless the table already has them for that step."""
        epoch = trainer.current_epoch + 1
        there = {row[1:4] for row in takewhile(lambda row: row[0] == epoch, reversed(self.rows))}
        # Split by split, in the order of first appearance: the order of the dictionary depends on where a run
        # was resumed.
        known = dict.fromkeys(f"{split}/{metric}" for _, _, split, metric, _ in self.rows)
        place = {name: n for n, name in enumerate(known)}
        for name, value in sorted(
            trainer.callback_metrics.items(),
            key=lambda item: (item[0].split("/")[0], place.get(item[0], len(place))),
        ):
            split, _, metric = name.partition("/")
            step = steps.get(split)
            if metric and step is not None and (step, split, metric) not in there:
                self.rows.append((epoch, step, split, metric, float(value)))

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            self.write(Path(trainer.default_root_dir))

    def write(self, directory: Path) -> None:
        """Writes the table into a run's directory."""
        write_history(self.table(), directory)

    def table(self) -> pd.DataFrame:
        """The rows so far."""
        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    def values(self, split: str) -> dict[str, float]:
        """The last value of each metric of a split."""
        return {metric: value for _, _, its_split, metric, value in self.rows if its_split == split}

    def curve(self, split: str, metric: str) -> dict[int, float]:
        """A metric's values by epoch."""
        return {
            epoch: v for epoch, _, s, m, v in self.rows if (s, m) == (split, metric) and not math.isnan(v)
        }

    def state_dict(self) -> dict[str, Any]:
        """The rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from the checkpoint's rows."""
        self.rows = [tuple(row) for row in state_dict["rows"]]
