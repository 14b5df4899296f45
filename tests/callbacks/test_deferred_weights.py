"""Deferred class weights in real runs: on at their epoch, the same after a break, and measured as trained."""

import pytest
import torch
from lightning.pytorch import Callback

from deq_collapse.losses import ClassWeights, CrossEntropy

ON = 3  # completed epochs: 0.6 of the 5 of these runs


class Stopped(Exception):  # noqa: N818
    pass


class Watch(Callback):
    """Notes the weights in effect in each epoch; raises at the second batch of an epoch, counted from 1."""

    def __init__(self, stop=None):
        self.stop, self.seen = stop, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        epoch = trainer.current_epoch + 1
        self.seen[epoch] = pl_module.criterion.class_weights.clone()
        if epoch == self.stop and batch_idx == 1:
            raise Stopped


def deferred(ready, directory, stop=None):
    watch = Watch(stop)
    run = ready(directory, "explicit", watching=[watch])
    run.module.criterion = CrossEntropy(run.data.class_counts, weights=ClassWeights(after=0.6))
    return run, watch


@pytest.fixture(scope="module")
def whole(ready, tmp_path_factory):
    run, watch = deferred(ready, tmp_path_factory.mktemp("deferred") / "new")
    run.trainer.fit(run.module, run.data)
    return run, watch


def test_all_classes_weigh_the_same_until_the_epoch_and_rare_ones_more_from_then_on(whole):
    _, watch = whole
    assert sorted(watch.seen) == [1, 2, 3, 4, 5]
    for epoch, weights in watch.seen.items():
        if epoch <= ON:
            assert torch.equal(weights, torch.ones(10))
        else:
            assert weights[:3].max() < 1 < weights[3:].min()


@pytest.mark.parametrize("stop", [ON, ON + 1, ON + 2])
def test_a_run_killed_around_that_epoch_ends_as_the_run_without_a_break(whole, ready, tmp_path, stop):
    killed, _ = deferred(ready, tmp_path, stop)
    with pytest.raises(Stopped):
        killed.trainer.fit(killed.module, killed.data)
    goes_on, _ = deferred(ready, tmp_path)
    goes_on.trainer.fit(goes_on.module, goes_on.data, ckpt_path=tmp_path / "last.ckpt")
    expected, continued = whole[0].module.state_dict(), goes_on.module.state_dict()
    assert all(torch.equal(expected[name], continued[name]) for name in expected)
    assert (tmp_path / "history.csv").read_bytes() == (whole[0].directory / "history.csv").read_bytes()


def test_a_checkpoint_is_measured_with_the_weights_it_was_trained_with(whole, ready):
    fresh, _ = deferred(ready, whole[0].directory)
    path = whole[0].directory / "last.ckpt"
    train, test = fresh.trainer.validate(fresh.module, fresh.data, ckpt_path=path, verbose=False)
    last = whole[0].history.query("epoch == 5").set_index(["split", "metric"]).value
    assert train["train/loss"] == pytest.approx(last["train", "loss"])
    assert test["test/accuracy_ncm"] == pytest.approx(last["test", "accuracy_ncm"])
