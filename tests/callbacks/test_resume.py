"""A run that is killed and goes on ends as the run without a break does, to the bit."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

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


def test_the_checkpoint_of_another_architecture_is_refused_in_one_sentence(finished, ready, tmp_path):
    other = {"explicit": "equilibrium", "equilibrium": "explicit"}[finished.refinement]
    run = ready(tmp_path, other)
    with pytest.raises(UserError, match=r"of another architecture: network\.refinement") as refusal:
        run.trainer.fit(run.module, run.data, ckpt_path=finished.directory / "last.ckpt")
    assert "\n" not in str(refusal.value)
