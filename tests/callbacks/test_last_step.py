"""The relative size of a computation's last step, which tells how near to a fixed point it ends."""

from functools import partial

import pandas as pd
import pytest
import torch

from deq_collapse.callbacks import LastStep
from deq_collapse.errors import UserError
from deq_collapse.models import ConvCell, Explicit, Unfolded

FREE = partial(ConvCell, lipschitz=None)
NAMES = ["last_step", "last_step_q90"]
REFINEMENTS = {
    "tied": partial(Explicit, block=FREE, depth=3, tied=True, gradient="phantom(2, 0.5)"),
    "untied": partial(Explicit, block=FREE, depth=3),
    "unfolded": partial(Unfolded, cell=FREE, depth=3),
}


def with_refinement(run, refinement):
    """The run, not yet fitted, with another refinement."""
    h0 = run.module.network.encoder(torch.zeros(1, *run.data.image_shape))
    run.module.network.refinement = refinement(h0.shape[1:])
    return run


def sizes(network, images):
    """The last step of every image, by hand."""
    h0, refinement = network.encoder(images), network.refinement
    unfolded = isinstance(refinement, Unfolded)
    states = [torch.zeros_like(h0) if unfolded else h0]
    for step in range(3):
        block = refinement.cell if unfolded else refinement.blocks[0 if refinement.tied else step]
        states.append(block(states[-1], h0))
    torch.testing.assert_close(states[-1], refinement(h0))
    moved, norm = ((z.flatten(1).norm(dim=1)) for z in (states[-1] - states[-2], states[-1]))
    return moved / norm


@pytest.mark.parametrize("kind", REFINEMENTS)
def test_it_is_median_and_quantile_of_the_steps_taken_by_hand(ready, tmp_path, kind):
    run = with_refinement(ready(tmp_path, watching=[LastStep()], epochs=2), REFINEMENTS[kind])
    run.trainer.fit(run.module, run.data)
    run.module.eval()
    last = run.history.query("metric in @NAMES and epoch == 2")
    logged = last.pivot(index="split", columns="metric", values="value")[NAMES]
    for split, loader in run.data.val_dataloader().items():
        with torch.no_grad():
            moved = torch.cat([sizes(run.module.network, images) for images, _ in loader])
        expected = [float(moved.quantile(share, interpolation="higher")) for share in (0.5, 0.9)]
        assert logged.loc[split].to_numpy() == pytest.approx(expected, rel=0.02)
        assert 0 < expected[0] < expected[1]


def test_of_an_equilibrium_it_is_the_residual_at_which_its_solve_ended(ready, tmp_path):
    run = ready(tmp_path, watching=[LastStep()], epochs=1)
    run.trainer.fit(run.module, run.data)
    values = run.history.query("split == 'train'").set_index("metric").value
    assert 0 < values.last_step <= values.last_step_q90 <= values.residual <= 1e-5


def test_deeper_tied_blocks_of_a_contraction_end_nearer_to_their_fixed_point(ready, tmp_path):
    steps = []
    for depth in (2, 8):
        block = partial(ConvCell, lipschitz=0.5)
        run = ready(tmp_path / str(depth), watching=[LastStep()], epochs=1)
        with_refinement(run, partial(Explicit, block=block, depth=depth, tied=True))
        run.trainer.fit(run.module, run.data)
        steps.append(float(run.history.query("split == 'test' and metric == 'last_step'").value.iloc[0]))
    assert steps[1] < 0.5**5 * steps[0]


def test_the_test_of_a_finished_run_has_it_too(ready, tmp_path):
    run = with_refinement(ready(tmp_path, watching=[LastStep()], epochs=1), REFINEMENTS["tied"])
    run.trainer.fit(run.module, run.data)
    (values,) = run.trainer.test(run.module, run.data, verbose=False)
    logged = run.history.query("split == 'test'").set_index("metric").value
    assert [values[f"test/{name}"] for name in NAMES] == pytest.approx([logged[name] for name in NAMES])


def test_training_is_not_changed(ready, tmp_path):
    runs = [ready(tmp_path / name, epochs=2, watching=w) for name, w in (("a", []), ("b", [LastStep()]))]
    for run in runs:
        torch.manual_seed(0)
        with_refinement(run, REFINEMENTS["tied"]).trainer.fit(run.module, run.data)
    plain, watched = (run.module.state_dict() for run in runs)
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    rest = runs[1].history.query("metric not in @NAMES").reset_index(drop=True)
    pd.testing.assert_frame_equal(runs[0].history, rest)
    assert not any(block._forward_hooks for block in runs[1].module.modules())


def test_a_refinement_without_two_steps_is_refused(ready, tmp_path):
    run = ready(tmp_path, "explicit", watching=[LastStep()])
    with pytest.raises(UserError, match=r"depth of 2 or more, .* is Explicit with a depth of 1"):
        run.trainer.fit(run.module, run.data)


def test_a_compiled_refinement_is_refused(ready, tmp_path):
    run = with_refinement(ready(tmp_path, watching=[LastStep()]), REFINEMENTS["tied"])
    run.module.compiled = True
    with pytest.raises(UserError, match=r"leave out model\.compile"):
        run.trainer.fit(run.module, run.data)
