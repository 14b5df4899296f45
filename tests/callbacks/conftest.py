"""Real runs of a real Trainer on real digits: a few epochs of a small network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from deq_collapse.callbacks import (
    Costs,
    Diagnostics,
    Divergence,
    Ending,
    Environment,
    History,
    LastCheckpoint,
    MeasurementSchedule,
    PredictionWriter,
    RunRecord,
)
from deq_collapse.data import CollapseDataModule, Digits, Step
from deq_collapse.models import CollapseModule, ConvCell, ConvEncoder, Equilibrium, Explicit

EPOCHS = 5
REFINEMENTS = {
    "explicit": partial(Explicit, block=partial(ConvCell, lipschitz=None)),
    "equilibrium": partial(Equilibrium, cell=partial(ConvCell, lipschitz=0.9)),
}


@dataclass
class Run:
    """A trainer after its run, its module, and where it left its files."""

    trainer: Trainer
    module: CollapseModule
    data: CollapseDataModule
    directory: Path
    refinement: str

    @property
    def history(self) -> pd.DataFrame:
        return pd.read_csv(self.directory / "history.csv")

    def callback(self, kind: type) -> Callback:
        return next(c for c in self.trainer.callbacks if isinstance(c, kind))


def prepare(
    directory: Path,
    refinement: str = "equilibrium",
    epochs: int = EPOCHS,
    watching: Sequence[Callback] = (),
    precision: str = "32-true",
    validation: int | None = None,
    **options: Any,
) -> Run:
    """A run ready to be fitted: the callbacks of the command line, and those that watch."""
    seed_everything(0, verbose=False)
    imbalance = Step(3, 10.0, n_max=130 if validation else None)
    data = CollapseDataModule(Digits(), imbalance, batch_size=128, validation=validation)
    module = CollapseModule(
        encoder=partial(ConvEncoder, width=8, depth=2),
        refinement=REFINEMENTS[refinement],
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        lr_scheduler=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=EPOCHS),
        image_shape=data.image_shape,
        class_counts=data.class_counts,
        majority=data.majority,
    )
    trainer = Trainer(
        accelerator="cpu",
        precision=precision,
        **({"max_epochs": epochs} | options),
        default_root_dir=directory,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            *watching,
            MeasurementSchedule(dense=2, growth=2.0),
            Environment(),
            Divergence(),
            Costs(),
            Diagnostics(),
            History(),
            PredictionWriter(),
            RunRecord("digits-" + refinement, "study", {"refinement": refinement}),
            Ending(),
            LastCheckpoint(),
        ],
    )
    return Run(trainer, module, data, directory, refinement)


@pytest.fixture(scope="session")
def ready() -> Callable[..., Run]:
    """Makes a run ready to be fitted."""
    return prepare


@pytest.fixture(scope="session", params=list(REFINEMENTS))
def finished(request, tmp_path_factory) -> Run:
    """A run of either refinement, fitted without a break."""
    run = prepare(tmp_path_factory.mktemp("run") / "new", request.param)
    run.trainer.fit(run.module, run.data)
    return run
