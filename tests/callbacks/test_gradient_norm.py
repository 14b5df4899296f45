"""The norm of a step's gradient, as backpropagation left it and before any clip."""

import math

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback

from deq_collapse.callbacks import GradientNorm
from deq_collapse.errors import UserError

NAMES = ["gradient_norm", "gradient_norm_max", "gradient_longer"]


class Steps(Callback):
    """The length of each step's gradient after backpropagation, and of that which its optimizer took."""

    def __init__(self):
        self.epochs, self.found, self.taken, self._before = [], [], [], {}

    def on_after_backward(self, trainer, pl_module):
        self.epochs.append(trainer.current_epoch + 1)
        self.found.append(length([p.grad for p in pl_module.parameters() if p.grad is not None]))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        buffers = {p: s["momentum_buffer"].double() for p, s in trainer.optimizers[0].state.items()}
        self.taken.append(length([now - 0.9 * self._before.get(p, 0.0) for p, now in buffers.items()]))
        self._before = {p: buffer.clone() for p, buffer in buffers.items()}


def length(tensors):
    return math.sqrt(sum(float((tensor.double() ** 2).sum()) for tensor in tensors))


@pytest.mark.parametrize("refinement", ["explicit", "equilibrium"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_it_is_that_of_every_step_before_a_clip(ready, tmp_path, refinement, clip):
    watch = Steps()
    options = {"epochs": 3, "gradient_clip_val": clip}
    run = ready(tmp_path / "run", refinement, watching=[GradientNorm(length=0.5), watch], **options)
    run.trainer.fit(run.module, run.data)

    steps = pd.DataFrame({"epoch": watch.epochs, "norm": watch.found})
    expected = steps.groupby("epoch").norm.agg([*("mean", "max"), lambda norm: (norm > 0.5).mean()])
    logged = run.history.query("split == 'fit' and metric in @NAMES")
    logged = logged.pivot(index="epoch", columns="metric", values="value")[NAMES]
    assert logged.to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-5)
    assert 0 < logged.gradient_longer.mean() < 1
    # What the optimizer got is the same gradient, cut to the clip.
    taken = [min(norm, clip or math.inf) for norm in watch.found]
    assert watch.taken == pytest.approx(taken, rel=1e-3)


def test_training_is_not_changed(ready, tmp_path):
    runs = [ready(tmp_path / n, epochs=2, watching=w) for n, w in (("a", []), ("b", [GradientNorm()]))]
    for run in runs:
        run.trainer.fit(run.module, run.data)
    plain, watched = (run.module.state_dict() for run in runs)
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    rest = runs[1].history.query("metric not in @NAMES").reset_index(drop=True)
    pd.testing.assert_frame_equal(runs[0].history, rest)


def test_a_length_of_nothing_is_refused(ready, tmp_path):
    run = ready(tmp_path, watching=[GradientNorm(length=0.0)])
    with pytest.raises(UserError, match="length of GradientNorm is 0, but it is a number above 0"):
        run.trainer.fit(run.module, run.data)
