"""A run that diverges ends at once, and says where."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback

from deq_collapse.errors import Diverged


@pytest.mark.parametrize("refinement", ["explicit", "equilibrium"])
def test_a_loss_that_is_not_finite_ends_the_run_with_its_place(refinement, ready, tmp_path):
    run = ready(tmp_path, refinement)
    run.module.lr_scheduler = None
    run.module.optimizer = partial(torch.optim.SGD, lr=1e30)
    with pytest.raises(
        Diverged, match=r"diverged at step \d+, in epoch \d+: the loss is (nan|inf)"
    ) as caught:
        run.trainer.fit(run.module, run.data)
    said = str(caught.value)
    assert "\n" not in said
    assert ("residual" in said) is (refinement == "equilibrium")
    order = run.data.indices[run.trainer.train_dataloader.sampler.indices()].tolist()
    named = [int(word) for word in said.partition("has ")[2].partition(" and")[0].split(", ")]
    assert any(order[start : start + 5] == named for start in range(0, len(order), 128))
    assert not (tmp_path / "result.json").exists()


class Break(Callback):
    """Makes the weights infinite after an epoch's last step."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx + 1 == trainer.num_training_batches:
            with torch.no_grad():
                next(pl_module.network.encoder.parameters()).fill_(torch.inf)


def test_features_that_are_not_finite_are_told_in_one_sentence(ready, tmp_path):
    run = ready(tmp_path, "explicit", watching=[Break()])
    with pytest.raises(
        Diverged, match=r"diverged: after step 4, on the train split, \d+ samples have non-finite"
    ):
        run.trainer.fit(run.module, run.data)
    assert not (tmp_path / "result.json").exists()
