"""Predictions as a table beside the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from deq_collapse.files import write_atomically


class PredictionWriter(BasePredictionWriter):
    """Writes ``predictions.csv``: label, predicted, probability, in the order of the test split.

    Under several processes each writes its own shard, ``predictions-RANK.csv``.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Writes the table."""
        columns = {
            name: torch.cat([batch[name] for batch in predictions]).cpu().numpy() for name in predictions[0]
        }
        name = "predictions.csv" if trainer.world_size == 1 else f"predictions-{trainer.global_rank}.csv"
        path = Path(trainer.default_root_dir) / name
        write_atomically(path, pd.DataFrame(columns).to_csv(index=False))
        print(f"Predictions: {path}")
