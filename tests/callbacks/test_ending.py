"""Whatever ends a fit, what it leaves is of its final weights, and says what ended it."""

import json
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, Timer

from deq_collapse.callbacks import History
from deq_collapse.data import Resampled
from deq_collapse.errors import UserError
from deq_collapse.losses import ClassWeights, CrossEntropy

STEPS = 4  # batches of 128 in an epoch


class Stop(Callback):
    """Asks for the end after so many steps."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step >= self.step


class Out(Callback):
    """Ends the time of a timer after so many steps: a time limit that is the same on every machine."""

    def __init__(self, timer, step):
        self.timer, self.step = timer, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step + 1 >= self.step:
            self.timer._duration = 0.0


def timed(step):
    timer = Timer(duration=timedelta(hours=1))
    return [Out(timer, step), timer]


def stopping():
    return [EarlyStopping("train/loss", mode="max", patience=1)]  # a loss that does not rise


ENDS = {
    "whole": ({}, [], "epochs", 5),
    "steps amid an epoch": ({"max_steps": 2 * STEPS + 2}, [], "steps", 3),
    "steps amid the last epoch": ({"max_epochs": 3, "max_steps": 2 * STEPS + 2}, [], "steps", 3),
    "steps after an epoch": ({"max_steps": 3 * STEPS}, [], "steps", 3),
    "steps alone": ({"max_epochs": -1, "max_steps": 2 * STEPS + 1}, [], "steps", 3),
    "time": ({"max_epochs": 500}, lambda: timed(2 * STEPS + 3), "time", 3),
    "early stopping": ({"max_epochs": 500}, stopping, "early stopping", 2),
    "should_stop": ({"max_epochs": 500}, lambda: [Stop(2 * STEPS + 2)], "stopped", 3),
    "measured within epochs": ({"max_epochs": 2, "val_check_interval": 3}, [], "epochs", 2),
}


@pytest.mark.parametrize("validation", [None, 5], ids=["test split", "validation split"])
@pytest.mark.parametrize("end", list(ENDS))
def test_the_record_is_of_the_final_weights(ready, tmp_path, end, validation):
    options, watching, by, epochs = ENDS[end]
    run = ready(
        tmp_path,
        "explicit",
        watching=watching() if callable(watching) else watching,
        validation=validation,
        **options,
    )
    run.trainer.fit(run.module, run.data)
    record = json.loads((tmp_path / "result.json").read_text())
    assert (record["end"]["by"], record["epochs"], record["steps"]) == (by, epochs, run.trainer.global_step)
    whole, rest = divmod(record["steps"], STEPS)
    assert record["end"]["whole_epochs"] == whole
    assert epochs == whole + (rest > 0)
    planned = record["end"]["planned_epochs"], record["end"]["planned_steps"]
    assert planned == tuple(
        None if limit < 0 else limit for limit in (run.trainer.max_epochs, run.trainer.max_steps)
    )

    final = true_measures(ready, tmp_path, validation)
    for split in ("train", "test", *(["validation"] if validation else [])):
        recorded = {name: value for name, value in record[split].items() if name in final[split]}
        assert recorded == pytest.approx(final[split], rel=1e-5, abs=1e-7, nan_ok=True)
    history = pd.read_csv(tmp_path / "history.csv")
    last = history[history["step"] == record["steps"]].set_index(["split", "metric"])["value"]
    assert last["test", "accuracy"] == pytest.approx(record["test"]["accuracy"])
    assert not history.duplicated(["step", "split", "metric"]).any()
    if validation:
        assert history.query("split == 'test'")["step"].unique().tolist() == [record["steps"]]

    with np.load(tmp_path / "geometry.npz") as arrays:
        weights = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
        assert np.array_equal(arrays["weight"], weights["network.classifier.weight"].numpy())
        assert arrays["class_means_train"] == pytest.approx(true_means(run), rel=1e-4, abs=1e-5)


def test_the_patience_of_early_stopping_counts_measurements(ready, tmp_path):
    """Of the epochs 1, 2, 4, 8, ... that are measured."""
    stop = EarlyStopping("train/loss", mode="max", patience=2)
    run = ready(tmp_path, "explicit", epochs=500, watching=[stop])
    run.trainer.fit(run.module, run.data)
    assert json.loads((tmp_path / "result.json").read_text())["epochs"] == 4


def true_measures(ready, directory, validation):
    """Of the last checkpoint, measured by a trainer that knows nothing of the fit."""
    fresh = ready(directory / "fresh", "explicit", validation=validation)
    fresh.module.load_state_dict(torch.load(directory / "last.ckpt", weights_only=True)["state_dict"])
    results = fresh.trainer.validate(fresh.module, fresh.data, verbose=False)
    values = {name: value for result in results for name, value in result.items()}
    return {
        split: {name.partition("/")[2]: v for name, v in values.items() if name.startswith(f"{split}/")}
        for split in ("train", "validation", "test")
    }


@torch.no_grad()
def true_means(run):
    images, labels = run.data.normalise(run.data.train_set.images), run.data.train_set.labels
    features = run.module.network.eval().features(images)
    return torch.stack([features[labels == c].mean(0) for c in range(10)]).numpy()


class Killed(Exception):  # noqa: N818
    pass


class Kill(Callback):
    """Dies between the last checkpoint and the record."""

    def on_train_end(self, trainer, pl_module):
        raise Killed


@pytest.mark.parametrize("end", ["steps amid an epoch", "early stopping", "should_stop"])
def test_a_run_killed_before_its_record_does_not_train_on(ready, tmp_path, end):
    options, watching, by, epochs = ENDS[end]
    for kill in ([Kill()], []):
        run = ready(
            tmp_path, "explicit", watching=[*(watching() if callable(watching) else []), *kill], **options
        )
        last = tmp_path / "last.ckpt"
        if kill:
            with pytest.raises(Killed):
                run.trainer.fit(run.module, run.data)
            steps = run.trainer.global_step
        else:
            run.trainer.fit(run.module, run.data, ckpt_path=last)
    record = json.loads((tmp_path / "result.json").read_text())
    assert (record["steps"], record["epochs"], record["end"]["by"]) == (steps, epochs, by)
    assert record["train"]["loss"] == run.callback(History).values("train")["loss"]


@pytest.mark.parametrize(
    "options",
    [
        {"limit_val_batches": 1},
        {"limit_val_batches": 0},
        {"overfit_batches": 2},
        {"check_val_every_n_epoch": 2},
    ],
)
def test_what_would_measure_a_part_is_refused(ready, tmp_path, options):
    run = ready(tmp_path, "explicit", **options)
    with pytest.raises(UserError, match=f"trainer.{next(iter(options))} is"):
        run.trainer.fit(run.module, run.data)


def test_deferred_weights_follow_the_true_length(ready, tmp_path):
    seen = {}

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen[trainer.current_epoch] = bool((pl_module.criterion.class_weights != 1).any())

    run = ready(tmp_path, "explicit", epochs=500, max_steps=4 * STEPS, watching=[Watch()])
    run.module.criterion = CrossEntropy(run.data.class_counts, weights=ClassWeights(after=0.5))
    run.trainer.fit(run.module, run.data)
    assert seen == {0: False, 1: False, 2: True, 3: True}


@pytest.mark.parametrize("watching", [stopping, lambda: timed(3)])
def test_what_is_deferred_needs_a_length_that_is_known(ready, tmp_path, watching):
    run = ready(tmp_path / "weights", "explicit", watching=watching())
    run.module.criterion = CrossEntropy(run.data.class_counts, weights=ClassWeights(after=0.5))
    with pytest.raises(UserError, match="length is known"):
        run.trainer.fit(run.module, run.data)
    run = ready(tmp_path / "sampler", "explicit", watching=watching())
    run.data.sampler = Resampled(from_epoch=2)
    with pytest.raises(UserError, match="length is known"):
        run.trainer.fit(run.module, run.data)


def test_a_sampler_that_begins_after_the_true_end_is_refused(ready, tmp_path):
    run = ready(tmp_path, "explicit", epochs=500, max_steps=4 * STEPS)
    run.data.sampler = Resampled(from_epoch=4)
    with pytest.raises(UserError, match="the run has 4"):
        run.trainer.fit(run.module, run.data)
