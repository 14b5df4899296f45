"""What is told of an equilibrium's solves: each number against the solves themselves."""

import json
import math

import pytest
import torch
from lightning.pytorch import Callback

from deq_collapse.callbacks import History
from deq_collapse.models import CollapseModule, Equilibrium, Tolerance


class Solves(Callback):
    """Keeps every solve of every epoch, and what autograd would say."""

    def __init__(self):
        self.epochs = {}

    def on_after_backward(self, trainer, pl_module):
        refinement = pl_module.network.refinement
        self.epochs.setdefault(trainer.current_epoch + 1, []).append(
            (refinement.forward_solve, refinement.backward_solve)
        )


def replace(module, **options):
    """The module's refinement with other options and the same weights."""
    old = module.network.refinement
    new = Equilibrium((8, 4, 4), lambda shape: old.cell, **options)
    module.network.refinement = new
    return new


@pytest.fixture(scope="module")
def watched(ready, tmp_path_factory):
    watch = Solves()
    run = ready(tmp_path_factory.mktemp("run") / "new", epochs=2, watching=[watch])
    run.trainer.fit(run.module, run.data)
    return run, watch


def test_every_epochs_values_are_those_of_its_solves(watched):
    run, watch = watched
    history = run.callback(History)
    for direction, place in (("forward", 0), ("backward", 1)):
        for epoch, pairs in watch.epochs.items():
            solves = [pair[place] for pair in pairs]
            residual = torch.cat([s.residual for s in solves]).sort().values
            n = len(residual)
            expected = {
                "evaluations": sum(s.evaluations for s in solves) / len(solves),
                "residual": residual[-1],
                "residual_median": residual[math.ceil(n / 2) - 1],
                "residual_q90": residual[math.ceil(0.9 * n) - 1],
                "unconverged": torch.cat([s.missed for s in solves]).float().mean(),
            }
            for name, value in expected.items():
                logged = history.curve("fit", f"{direction}_{name}")[epoch]
                assert logged == pytest.approx(float(value)), (direction, name)


class TwoViews(CollapseModule):
    """Compares two views of each image: both forward passes come before the one backward pass."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        one, other = (self.criterion(self(view), y) for view in (x, 10 * x.flip(3)))
        return one + other


class Records(Callback):
    """The record of every call in training."""

    def on_train_start(self, trainer, pl_module):
        self.recording = pl_module.network.refinement.recorded()
        self.calls = self.recording.__enter__()


def test_every_call_of_a_step_counts_with_its_own_adjoint_solve(ready, tmp_path):
    """Of two calls the module's latest is the second; what the first one needed must not be lost."""
    records = Records()
    run = ready(tmp_path / "new", epochs=1, watching=[records])
    run.module.__class__ = TwoViews
    run.trainer.fit(run.module, run.data)
    calls = [call for call in records.calls if call.gradient is not None]  # those of training
    assert len(calls) == 2 * len(run.data.train_dataloader())
    assert [len(call.backward) for call in calls] == [1] * len(calls)
    history = run.callback(History)
    for direction, solves in (
        ("forward", [call.forward for call in calls]),
        ("backward", [call.backward[0] for call in calls]),
    ):
        evaluations, residual = (
            history.curve("fit", f"{direction}_{n}")[1] for n in ("evaluations", "residual")
        )
        assert evaluations == pytest.approx(sum(s.evaluations for s in solves) / len(solves))
        assert residual == pytest.approx(max(float(s.residual.max()) for s in solves))
    assert not torch.equal(calls[0].forward.residual, calls[1].forward.residual)
    assert not torch.equal(calls[0].backward[0].residual, calls[1].backward[0].residual)


def test_a_splits_unconverged_is_the_share_of_its_samples_that_missed_eval_tol(ready, tmp_path):
    run = ready(tmp_path / "new", epochs=1)
    refinement = replace(run.module, eval_max_iter=3)
    run.trainer.fit(run.module, run.data)
    images = run.data.normalise(run.data.source.test.images)

    @torch.no_grad()
    def residual():
        run.module.eval()
        refinement(run.module.network.encoder(images))
        return refinement.latest.forward.residual

    refinement.eval_tol = Tolerance(float(residual().median()), 3)
    share = float((residual() > refinement.eval_tol.relative).double().mean())
    assert 0.1 < share < 0.9
    _, test = run.trainer.validate(run.module, run.data, verbose=False)
    assert test["test/unconverged"] == pytest.approx(share, abs=2 / len(images))


def test_the_spectral_radius_is_below_the_certified_bound_and_the_error_within_its_own(watched):
    run, _ = watched
    history, refinement = run.callback(History), run.module.network.refinement.eval()
    train = history.values("train")
    assert 0 < train["spectral_radius"] < train["lipschitz_bound"] <= 0.9 * 1.1
    assert train["lipschitz_bound"] == pytest.approx(refinement.cell.lipschitz_bound())
    images = run.data.normalise(run.data.source.test.images)
    with torch.no_grad():
        h0 = run.module.network.encoder(images)
        z = refinement(h0).flatten(1).double()
        exact = Equilibrium((8, 4, 4), lambda shape: refinement.cell, eval_tol=1e-14).eval().double()
        error = (z - exact(h0.double()).flatten(1)).norm(dim=1) / z.norm(dim=1)
        exact.float()
    assert error.max() <= history.values("test")["error_bound"]
    expected = history.values("test")["residual"] / (1 - train["lipschitz_bound"])
    assert history.values("test")["error_bound"] == pytest.approx(expected)


def test_a_backward_solve_that_misses_is_counted_logged_recorded_and_warned_of_once_per_epoch(
    ready, tmp_path
):
    run = ready(tmp_path / "new", epochs=2)
    replace(run.module, backward_tol=1e-6, max_iter=3, tol=0.5)
    with pytest.warns(UserWarning, match=r"in epoch \d the gradients of .*% of the samples missed") as warned:
        run.trainer.fit(run.module, run.data)
    assert [str(w.message).split()[2] for w in warned if "gradients" in str(w.message)] == ["1", "2"]
    history = run.callback(History)
    missed = history.curve("fit", "backward_unconverged")
    assert all(0 < share <= 1 for share in missed.values())
    assert all(residual > 1e-6 for residual in history.curve("fit", "backward_residual").values())
    solver = json.loads((run.directory / "result.json").read_text())["solver"]
    assert solver["backward_unconverged"] == pytest.approx(missed[2])
    assert solver["backward_unconverged_worst_epoch"] == pytest.approx(max(missed.values()))


@pytest.mark.parametrize("gradient", ["jfb", "phantom(2, 0.5)", "unrolled(6)"])
def test_a_gradient_without_an_adjoint_solve_has_none_to_tell_of(ready, tmp_path, gradient):
    run = ready(tmp_path / "new", epochs=1)
    replace(run.module, gradient=gradient)
    run.trainer.fit(run.module, run.data)
    fit = run.callback(History).values("fit")
    assert not any(name.startswith("backward") for name in fit)
    assert fit["forward_evaluations"] > 1
    solver = json.loads((run.directory / "result.json").read_text())["solver"]
    assert solver["gradient"] == gradient
    assert solver["backward_evaluations"] is None
    assert (
        run.callback(History).values("test")["unconverged"] == 0
    )  # measured at the fixed point all the same


def test_a_jacobian_weight_adds_its_term_to_the_loss_and_lowers_the_jacobian(ready, tmp_path):
    ends = {}
    for weight in (0.0, 30.0):
        run = ready(tmp_path / str(weight), epochs=2)
        replace(run.module, jacobian_weight=weight)
        run.trainer.fit(run.module, run.data)
        ends[weight] = run.module.network.refinement
        curve = run.callback(History).curve("fit", "jacobian")
        assert curve.keys() == ({1, 2} if weight else set())
    h0 = torch.rand(64, 8, 4, 4)
    sizes = {}
    for weight, refinement in ends.items():
        again = Equilibrium((8, 4, 4), lambda shape, r=refinement: r.cell, jacobian_weight=1.0)
        torch.manual_seed(0)
        again(h0)
        sizes[weight] = float(again.jacobian.detach())
    assert sizes[30.0] < 0.8 * sizes[0.0]


def test_a_mixed_precision_run_solves_as_far_as_any(ready, tmp_path):
    run = ready(tmp_path / "new", epochs=2, precision="bf16-mixed")
    run.trainer.fit(run.module, run.data)
    history = run.callback(History)
    assert history.values("fit")["forward_residual"] <= 1e-4
    assert history.values("fit")["backward_residual"] <= 1e-4
    assert history.values("test")["residual"] <= 1e-5
    assert history.values("train")["spectral_radius"] > 0
    loss = history.curve("fit", "loss")
    assert loss[2] < loss[1]
