"""What steadies the training of free cells: each option by its own law, and exact where a run is taken up."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback

from deq_collapse.callbacks import History, JacobianSchedule, Pretraining, SpectralRadius
from deq_collapse.errors import UserError
from deq_collapse.models import Equilibrium, Implicit, Unrolled

WEIGHTS = {1: 0.0, 3: 4.0}


class Stopped(Exception):  # noqa: N818
    pass


class Watch(Callback):
    """Keeps each step's weights and gradient; raises at the second batch of an epoch, counted from 1."""

    def __init__(self, stop=None):
        self.stop, self.weights, self.gradients = stop, [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch + 1 == self.stop and batch_idx == 1:
            raise Stopped

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append(copy.deepcopy(pl_module.network.state_dict()))
        self.gradients.append(pl_module.network.refinement.latest.gradient)


def replace(run, **options):
    """The run's refinement with other options and the same weights."""
    cell = run.module.network.refinement.cell
    run.module.network.refinement = Equilibrium((8, 4, 4), lambda shape: cell, **options)


def fitted(ready, directory, *watching, epochs=4, **options):
    run = ready(directory, epochs=epochs, watching=watching)
    replace(run, **options)
    run.trainer.fit(run.module, run.data)
    return run


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@given(st.floats(0, 5), st.floats(0, 5), st.integers(1, 50), st.integers(0, 60))
def test_a_schedule_is_linear_between_its_epochs_and_constant_outside(first, last, length, epoch):
    schedule = JacobianSchedule({5 + length: last, 5: first})
    share = min(max((epoch - 5) / length, 0), 1)
    assert schedule.weight(epoch) == pytest.approx(first + share * (last - first))


@pytest.mark.parametrize("weights", [{}, {0: -1.0}, {-1: 1.0}, {0: float("nan")}])
def test_a_schedule_of_no_weights_is_refused(ready, tmp_path, weights):
    with pytest.raises(UserError, match=r"the weights of a Jacobian schedule are .*\.$"):
        fitted(ready, tmp_path, JacobianSchedule(weights))


def test_a_scheduled_weight_is_each_epochs_and_of_one_point_the_refinements_own(ready, tmp_path):
    run = fitted(ready, tmp_path / "schedule", JacobianSchedule(WEIGHTS), epochs=3)
    history = run.callback(History)
    assert history.curve("fit", "jacobian_weight") == {1: 0.0, 2: 0.0, 3: 2.0}
    assert history.curve("fit", "jacobian").keys() == {3}
    constant = fitted(ready, tmp_path / "constant", JacobianSchedule({0: 2.0}), epochs=2)
    own = fitted(ready, tmp_path / "own", epochs=2, jacobian_weight=2.0)
    assert_same(constant.module.state_dict(), own.module.state_dict())


def test_pretraining_is_the_gradient_of_unrolled_steps_and_then_the_refinements_own(ready, tmp_path):
    batches = 4
    watch, unrolled = Watch(), Watch()
    run = fitted(ready, tmp_path / "pre", Pretraining(batches + 2, 3), watch, epochs=2)
    fitted(ready, tmp_path / "unrolled", unrolled, epochs=2, gradient="unrolled(3)")
    assert watch.gradients == [Unrolled(3)] * 6 + [Implicit()] * 2
    for step in range(6):
        assert_same(watch.weights[step], unrolled.weights[step])
    assert not torch.equal(*(w.weights[6]["refinement.cell.inner.weight"] for w in (watch, unrolled)))
    history = run.callback(History)
    for direction in ("forward", "backward"):  # of epochs in which something was solved
        assert history.curve("fit", f"{direction}_evaluations").keys() == {2}
    assert history.curve("fit", "forward_unconverged") == {2: 0.0}
    assert history.curve("test", "unconverged") == {1: 0.0, 2: 0.0}


@pytest.mark.parametrize("stop", [2, 3, 4])
@pytest.mark.parametrize("make", [lambda: JacobianSchedule(WEIGHTS), lambda: Pretraining(6, 3)])
def test_a_run_killed_and_continued_equals_the_run_without_a_break(ready, tmp_path, make, stop):
    whole = fitted(ready, tmp_path / "whole", make())
    with pytest.raises(Stopped):
        fitted(ready, tmp_path / "killed", make(), Watch(stop))
    again = ready(tmp_path / "killed", epochs=4, watching=[make()])
    replace(again)
    again.trainer.fit(again.module, again.data, ckpt_path=tmp_path / "killed" / "last.ckpt")
    assert_same(whole.module.state_dict(), again.module.state_dict())
    histories = [(tmp_path / name / "history.csv").read_bytes() for name in ("whole", "killed")]
    assert histories[0] == histories[1]


def test_pretraining_that_training_does_not_outlast_is_refused(ready, tmp_path):
    with pytest.raises(UserError, match="pre-training takes 8 steps, but all of training has 8"):
        fitted(ready, tmp_path / "new", Pretraining(8, 3), epochs=2)


@pytest.mark.parametrize("wrong", [(0, 3), (3, 0)])
def test_pretraining_without_steps_is_refused(ready, tmp_path, wrong):
    with pytest.raises(UserError, match="at least 1"):
        fitted(ready, tmp_path, Pretraining(*wrong))


class Radius(Callback):
    """The same radius, of a copy, at the first batch of each epoch."""

    def __init__(self):
        self.radii = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        hook = pl_module.network.refinement.register_forward_pre_hook
        hook(lambda module, args: setattr(self, "h0", args[0].detach()))

    def on_after_backward(self, trainer, pl_module):
        refinement = copy.deepcopy(pl_module.network.refinement).eval()
        some = slice(None, None, len(self.h0) // 8)
        radius = refinement.spectral_radius(self.h0[some], pl_module.network.refinement.state[some]).max()
        self.radii.setdefault(trainer.current_epoch + 1, float(radius))


def test_the_spectral_radius_of_training_is_that_of_its_states_and_changes_nothing(ready, tmp_path):
    """The cell is a bounded one, which follows its norms from step to step, and the Jacobian term draws."""
    watch = Radius()
    options = {"epochs": 2, "jacobian_weight": 0.5}
    run = fitted(ready, tmp_path / "watched", SpectralRadius(), watch, **options)
    plain = fitted(ready, tmp_path / "plain", **options)
    assert_same(run.module.state_dict(), plain.module.state_dict())
    history = run.callback(History)
    assert history.curve("fit", "spectral_radius") == pytest.approx(watch.radii)
    assert 0 < min(watch.radii.values()) < max(watch.radii.values()) < 0.9
    rows = [row for row in history.rows if row[2:4] != ("fit", "spectral_radius")]
    assert rows == plain.callback(History).rows


@pytest.mark.parametrize(
    "make", [lambda: JacobianSchedule(WEIGHTS), lambda: Pretraining(2, 3), SpectralRadius]
)
def test_an_explicit_refinement_is_left_alone(ready, tmp_path, make):
    plain, run = (
        ready(tmp_path / n, "explicit", epochs=1, watching=w) for n, w in (("a", []), ("b", [make()]))
    )
    for each in (plain, run):
        each.trainer.fit(each.module, each.data)
    assert_same(plain.module.state_dict(), run.module.state_dict())
    assert plain.callback(History).rows == run.callback(History).rows


class FirstLoss(Callback):
    """Keeps the loss of the first step and its Jacobian term, and ends the run."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.loss = outputs["loss"]
        self.term = pl_module.network.refinement.jacobian
        raise Stopped


@pytest.mark.parametrize("refinement", ["explicit", "equilibrium"])
def test_the_jacobian_term_is_part_of_the_loss(ready, tmp_path, refinement):
    seen = {}
    for weight in (1e-9, 0.5):
        seen[weight] = FirstLoss()
        run = ready(tmp_path / str(weight), refinement, watching=[seen[weight]])
        run.module.network.refinement.jacobian_weight = weight
        with pytest.raises(Stopped):
            run.trainer.fit(run.module, run.data)
    assert seen[0.5].term > 0
    torch.testing.assert_close(seen[0.5].loss, seen[1e-9].loss + 0.5 * seen[0.5].term)
