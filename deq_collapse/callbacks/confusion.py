"""The classes that a finished run confuses, and the accuracy of each class, as one table beside the run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from deq_collapse.data import CollapseDataModule
from deq_collapse.files import write_atomically
from deq_collapse.models.module import CollapseModule
from deq_collapse.runs.files import CONFUSION


class Confusion(Callback):
    """Writes ``confusion.csv`` at the end of a fit: one row per class for each split."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table of the last measures."""
        assert isinstance(pl_module, CollapseModule)
        unfinished = trainer.interrupted or trainer.fast_dev_run or not pl_module.confusions  # type: ignore[attr-defined]
        if unfinished or not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, CollapseDataModule)
        rows = table(pl_module.confusions, data.class_names, data.class_counts, pl_module.groups)
        write_atomically(Path(trainer.default_root_dir) / CONFUSION, rows.to_csv(index=False))


def table(
    confusions: Mapping[str, Tensor],
    names: Sequence[str],
    class_counts: Sequence[int],
    groups: Mapping[str, Sequence[int]],
) -> pd.DataFrame:
    """A row per split and class: its name, its group (empty without groups), its training images, its
    accuracy (empty without samples), and the number of its samples predicted as each class, ``as NAME``.

    Args:
        confusions: counts of (true class, predicted class), (K, K), by split.
        names: one per class.
        class_counts: training images per class, (K,).
        groups: classes by the name of their group.
    """
    group = {c: name for name, members in groups.items() for c in members}
    rows = [
        {
            "split": split,
            "class": names[c],
            "group": group.get(c, ""),
            "training_images": class_counts[c],
            "accuracy": float(taken[c]) / count if (count := int(taken.sum())) else math.nan,
            **{f"as {name}": int(number) for name, number in zip(names, taken, strict=True)},
        }
        for split, confusion in confusions.items()
        for c, taken in enumerate(confusion)
    ]
    return pd.DataFrame(rows)
