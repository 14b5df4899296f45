"""A run that is killed and goes on ends as the run without a break does, to the bit."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau

from deq_collapse.callbacks import Costs
from deq_collapse.errors import UserError


class Killed(Exception):  # noqa: N818
    pass


class Kill(Callback):
    """Raises at the second batch of an epoch, counted from 1, or when training is over."""

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch + 1 == self.epoch and batch_idx == 1:
            raise Killed

    def on_train_end(self, trainer, pl_module):
        if self.epoch is None:
            raise Killed


@pytest.mark.parametrize("epoch", [2, 4, 5, None])
def test_a_run_killed_and_continued_equals_the_run_without_a_break(finished, ready, tmp_path, epoch):
    refinement = finished.refinement
    killed = ready(tmp_path, refinement, watching=[Kill(epoch)])
    with pytest.raises(Killed):
        killed.trainer.fit(killed.module, killed.data)
    assert not (tmp_path / "result.json").exists()

    goes_on = ready(tmp_path, refinement)
    goes_on.trainer.fit(goes_on.module, goes_on.data, ckpt_path=tmp_path / "last.ckpt")

    whole, continued = finished.module.state_dict(), goes_on.module.state_dict()
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
    assert (tmp_path / "history.csv").read_bytes() == (finished.directory / "history.csv").read_bytes()
    records = [json.loads((run.directory / "result.json").read_text()) for run in (finished, goes_on)]
    assert all(record.pop("seconds_per_step") > 0 for record in records)
    assert records[0] == records[1]
    arrays = [np.load(run.directory / "geometry.npz") for run in (finished, goes_on)]
    assert set(arrays[0]) == set(arrays[1])
    assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0])


@pytest.mark.parametrize("epoch", [3, 4])  # of which one is measured
def test_a_run_that_goes_on_within_an_epoch_ends_in_the_same_weights(finished, ready, tmp_path, epoch):
    refinement = finished.refinement
    steps = partial(ModelCheckpoint, tmp_path / "steps", "{step}", every_n_train_steps=1)
    killed = ready(tmp_path, refinement, watching=[steps(), Kill(epoch)])
    with pytest.raises(Killed):
        killed.trainer.fit(killed.module, killed.data)
    (saved,) = (tmp_path / "steps").iterdir()

    goes_on = ready(tmp_path, refinement, watching=[steps()])
    goes_on.trainer.fit(goes_on.module, goes_on.data, ckpt_path=saved)

    whole, continued = finished.module.state_dict(), goes_on.module.state_dict()
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
    rows = [run.history.query("metric in ('learning_rate', 'nc1')") for run in (finished, goes_on)]
    pd.testing.assert_frame_equal(*(found.reset_index(drop=True) for found in rows))
    times = goes_on.callback(Costs).seconds_per_step_of_epoch
    assert len(times) == 4  # not of the epoch that was broken off
    assert max(times) < 60


def test_nothing_that_is_there_is_overwritten_from_python(finished, ready, tmp_path):
    before = {path: path.read_bytes() for path in finished.directory.iterdir()}
    for again in (finished, ready(finished.directory, finished.refinement)):
        with pytest.raises(UserError, match="holds a finished run, and nothing is overwritten"):
            again.trainer.fit(again.module, again.data)
    assert before == {path: path.read_bytes() for path in finished.directory.iterdir()}

    killed = ready(tmp_path, finished.refinement, watching=[Kill(2)])
    with pytest.raises(Killed):
        killed.trainer.fit(killed.module, killed.data)
    anew = ready(tmp_path, finished.refinement)
    with pytest.raises(UserError, match=r"holds an interrupted run: continue it by ckpt_path=.*last\.ckpt"):
        anew.trainer.fit(anew.module, anew.data)


def test_the_checkpoint_of_another_architecture_is_refused_in_one_sentence(finished, ready, tmp_path):
    other = {"explicit": "equilibrium", "equilibrium": "explicit"}[finished.refinement]
    run = ready(tmp_path, other)
    with pytest.raises(UserError, match=r"of another architecture: network\.refinement") as refusal:
        run.trainer.fit(run.module, run.data, ckpt_path=finished.directory / "last.ckpt")
    assert "\n" not in str(refusal.value)


def test_a_schedule_counts_measurements_and_goes_on_with_its_count(ready, tmp_path):
    """The epochs 1, 2, 4 and 5 are measured, and a falling loss is no rising one."""
    plateau = partial(ReduceLROnPlateau, monitor="train/loss", mode="max", patience=0, factor=0.5)
    for kill in ([Kill(3)], []):
        run = ready(tmp_path, "explicit", watching=kill)
        run.module.lr_scheduler = plateau
        if kill:
            with pytest.raises(Killed):
                run.trainer.fit(run.module, run.data)
        else:
            run.trainer.fit(run.module, run.data, ckpt_path=tmp_path / "last.ckpt")
    history = pd.read_csv(tmp_path / "history.csv")
    assert history[history.metric == "learning_rate"].value.tolist() == [0.1, 0.1, 0.05, 0.05, 0.025]


@pytest.mark.parametrize("epoch", [2, None])
def test_an_average_of_weights_goes_on_and_is_what_is_recorded(ready, tmp_path, epoch):
    """Its last move, at the end of the epoch, comes after the epoch's measurement."""
    for name in ("whole", "killed", "goes on"):
        directory = tmp_path / ("whole" if name == "whole" else "broken")
        average = EMAWeightAveraging(decay=0.5, update_every_n_steps=2, update_starting_at_epoch=0)
        watching = [average, *([Kill(epoch)] if name == "killed" else [])]
        run = ready(directory, "explicit", epochs=2, watching=watching)
        if name == "killed":
            with pytest.raises(Killed):
                run.trainer.fit(run.module, run.data)
        else:
            path = directory / "last.ckpt" if name == "goes on" else None
            run.trainer.fit(run.module, run.data, ckpt_path=path)

    for directory in (tmp_path / "whole", tmp_path / "broken"):
        saved = torch.load(directory / "last.ckpt", weights_only=True)
        weight = saved["state_dict"]["network.classifier.weight"]
        assert not torch.equal(weight, saved["current_model_state"]["network.classifier.weight"])
        with np.load(directory / "geometry.npz") as arrays:
            assert np.array_equal(arrays["weight"], weight.numpy())
        fresh = ready(tmp_path / "fresh", "explicit")
        fresh.module.load_state_dict(saved["state_dict"])
        (values, _) = fresh.trainer.validate(fresh.module, fresh.data, verbose=False)
        record = json.loads((directory / "result.json").read_text())
        for measure in ("nc1", "loss", "accuracy"):
            assert record["train"][measure] == pytest.approx(values[f"train/{measure}"], rel=1e-6)
        assert (directory / "history.csv").read_bytes() == (tmp_path / "whole" / "history.csv").read_bytes()
