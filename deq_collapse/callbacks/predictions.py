"""Predictions as a table in the run's directory."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deq_collapse.files import write_atomically


class PredictionWriter(Callback):
    """Writes ``predictions.csv``: label, predicted, probability, in the order of the test split.

    With several processes, each writes its own shard, ``predictions-RANK.csv``. This is not Lightning's
    ``BasePredictionWriter``, which warns about every loader that is not torch's own.
    """

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the predictions of an earlier call."""
        self._batches = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps a batch."""
        self._batches.append({name: values.cpu() for name, values in outputs.items()})

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table, but not of the one batch of a ``fast_dev_run``."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        columns = {
            name: torch.cat([batch[name] for batch in self._batches]).numpy() for name in self._batches[0]
        }
        name = "predictions.csv" if trainer.world_size == 1 else f"predictions-{trainer.global_rank}.csv"
        path = Path(trainer.default_root_dir) / name
        write_atomically(path, pd.DataFrame(columns).to_csv(index=False))
        print(f"Predictions: {path}")
