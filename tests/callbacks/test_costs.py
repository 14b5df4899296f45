"""What a run costs, against counts by hand."""

import itertools
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from deq_collapse.callbacks import Costs, costs
from deq_collapse.callbacks.costs import (
    cost_images,
    flops_by_part,
    flops_per_image,
    saved_activation_bytes,
    saved_by_part,
    saved_per_image,
)
from deq_collapse.models import ConvCell, ConvEncoder, Equilibrium, Explicit, GlobalAverage, Network


def network(refinement) -> Network:
    torch.manual_seed(0)
    return Network(
        (1, 8, 8), 3, partial(ConvEncoder, width=6, depth=2), refinement, GlobalAverage(), nn.Linear
    )


def equilibrium(**options) -> Network:
    return network(partial(Equilibrium, cell=partial(ConvCell, lipschitz=0.9), **options))


def explicit(depth=1) -> Network:
    return network(partial(Explicit, block=partial(ConvCell, lipschitz=None), depth=depth))


def test_flops_of_a_convolution_and_a_linear_layer_counted_by_hand():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
    convolution = 2 * (8 * 8 * 2) * (1 * 3 * 3)  # a multiply-add for every output and kernel entry
    linear = 2 * 128 * 5
    assert flops_per_image(net, torch.randn(7, 1, 8, 8)) == convolution + linear


def test_flops_of_an_explicit_network_grow_by_two_convolutions_a_block():
    x = torch.randn(4, 1, 8, 8)
    one, three = (flops_per_image(explicit(depth), x) for depth in (1, 3))
    assert three - one == 2 * 2 * 2 * (6 * 4 * 4) * (6 * 3 * 3)


def test_flops_of_an_equilibrium_grow_with_the_evaluations_it_needs():
    x = torch.randn(4, 1, 8, 8)
    loose, tight = equilibrium(eval_tol=1e-1), equilibrium(eval_tol=1e-5)
    counts = [flops_per_image(net, x) for net in (loose, tight)]
    evaluations = [net.refinement.forward_solve.evaluations for net in (loose, tight)]
    per_evaluation = 2 * 2 * (6 * 4 * 4) * (6 * 3 * 3)
    assert evaluations[0] < evaluations[1]
    assert counts[1] - counts[0] >= per_evaluation * (evaluations[1] - evaluations[0])


@pytest.mark.parametrize("training", [True, False])
def test_counting_flops_leaves_the_mode_as_it_was(training):
    net = explicit().train(training)
    flops_per_image(net, torch.randn(2, 1, 8, 8))
    assert net.training == training
    assert torch.backends.mha.get_fastpath_enabled()


def test_flops_of_attention_counted_by_hand():
    """In eval mode torch fuses it into one operation, which torch's counter passes over."""
    n, d, hidden = 10, 8, 32
    layer = nn.TransformerEncoderLayer(d, 2, hidden, batch_first=True)
    projections, attention, feedforward = 4 * 2 * n * d * d, 2 * 2 * n * n * d, 2 * 2 * n * d * hidden
    assert flops_per_image(layer, torch.randn(3, n, d)) == projections + attention + feedforward


def test_costs_by_part_counted_by_hand():
    parts, x = explicit().parts(), torch.randn(4, 1, 8, 8)
    first, second = 2 * (6 * 8 * 8) * 9, 2 * (6 * 4 * 4) * (6 * 9)
    flops = {"encoder": first + second, "refinement": 2 * second, "readout": 0, "classifier": 2 * 6 * 3}
    assert flops_by_part(parts, x) == flops | {"total": sum(flops.values())}
    large, small = 4 * 6 * 8 * 8, 4 * 6 * 4 * 4
    # What convolutions, batch norms and the last ReLU of the encoder work on; both ReLUs of the block, of
    # which the first is what its second convolution works on; what the classifier works on.
    bytes_ = {
        "encoder": 4 * 64 + 2 * large + 2 * small,
        "refinement": 2 * small,
        "readout": 0,
        "classifier": 24,
    }
    per_image, fixed = saved_per_image(parts, x)
    assert per_image == bytes_ | {"total": sum(bytes_.values())}
    assert fixed["total"] == fixed["encoder"] == 2 * 2 * 6 * 4  # mean and deviation of both batch norms


@pytest.mark.parametrize("net", [explicit(3), equilibrium()], ids=["explicit", "equilibrium"])
def test_the_parts_add_up_to_the_network(net):
    x = torch.randn(8, 1, 8, 8)
    assert flops_by_part(net.parts(), x)["total"] == flops_per_image(net, x)
    assert saved_by_part(net.parts(), x)["total"] == saved_activation_bytes(net, x)


@pytest.mark.parametrize("images", [2, 3, 64])
@pytest.mark.parametrize("net", [explicit(3), equilibrium()], ids=["explicit", "equilibrium"])
def test_the_activations_of_any_batch_follow_from_four_images(net, images):
    per_image, fixed = saved_per_image(net.parts(), torch.randn(3, 1, 8, 8))
    saved = saved_by_part(net.parts(), torch.randn(images, 1, 8, 8))
    assert saved == {name: fixed[name] + images * per_image[name] for name in saved}


def test_activations_of_a_linear_layer_are_its_input_and_no_weight():
    x = torch.randn(10, 8)
    assert saved_activation_bytes(nn.Linear(8, 3), x) == 10 * 8 * 4
    # The second layer saves its weight too, which is not counted.
    assert saved_activation_bytes(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3)), x) == 2 * 10 * 8 * 4
    # A view of the input is the same memory, and counted once.
    assert saved_activation_bytes(nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Linear(4, 3)), x) == 10 * 8 * 4


def test_activations_saved_do_not_depend_on_how_long_the_solver_may_run():
    x = torch.randn(16, 1, 8, 8)
    counts = {saved_activation_bytes(equilibrium(max_iter=n, tol=1e-30), x) for n in (2, 10, 60)}
    assert len(counts) == 1


def test_activations_grow_with_the_depth_of_an_explicit_network():
    x = torch.randn(16, 1, 8, 8)
    one, two, three = (saved_activation_bytes(explicit(depth), x) for depth in (1, 2, 3))
    assert three - two == two - one > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("net", [explicit(), equilibrium()], ids=["explicit", "equilibrium"])
def test_counting_activations_leaves_network_and_random_numbers_as_they_were(net, training):
    net = nn.Sequential(net, nn.Dropout()).train(training)
    before, draws = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    saved_activation_bytes(net, torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)
    assert net.training == training
    assert all(p.grad is None for p in net.parameters())


def test_a_run_counts_once_and_times_every_epoch(finished):
    costs = finished.callback(Costs)
    x, _ = next(iter(finished.data.train_dataloader()))
    assert costs.activation_bytes == saved_activation_bytes(finished.module.network, x)
    assert len(costs.seconds_per_step_of_epoch) == 5
    assert (
        min(costs.seconds_per_step_of_epoch)
        <= costs.seconds_per_step()
        <= max(costs.seconds_per_step_of_epoch)
    )


def test_costs_are_counted_on_images_from_all_over_the_test_split(finished):
    images = finished.data.source.test.images
    counted = cost_images(finished.data, torch.device("cpu"))
    assert counted.shape == (64, 1, 8, 8)
    assert torch.equal(counted[[0, -1]], finished.data.normalise(images[[0, -1]]))


def test_time_is_that_of_a_step_of_the_optimizer_however_many_batches_it_takes(ready, tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(costs, "_now", lambda device: float(next(clock)))
    run = ready(tmp_path, "explicit", epochs=1, accumulate_grad_batches=2)
    run.trainer.fit(run.module, run.data)
    assert run.trainer.num_training_batches == 4
    assert run.callback(Costs).seconds_per_step_of_epoch == [1 / 2]


def test_the_clock_stands_still_while_an_epoch_is_interrupted_by_a_measurement(ready, tmp_path, monkeypatch):
    seconds = {"now": 0.0}
    monkeypatch.setattr(costs, "_now", lambda device: seconds["now"])

    class Clock(Callback):
        def on_train_batch_end(self, *args):
            seconds["now"] += 1.0

        def on_validation_batch_end(self, *args):
            seconds["now"] += 1000.0

    run = ready(tmp_path, "explicit", epochs=1, watching=[Clock()], val_check_interval=2)
    run.trainer.fit(run.module, run.data)
    assert seconds["now"] > 2000
    assert run.callback(Costs).seconds_per_step_of_epoch == [1.0]


def test_activations_are_those_of_the_precision_of_the_run(ready, tmp_path):
    counted = []
    for precision in ("32-true", "bf16-mixed"):
        run = ready(tmp_path / precision, "explicit", epochs=1, precision=precision)
        run.trainer.fit(run.module, run.data)
        counted.append(run.callback(Costs).activation_bytes)
    assert counted[1] < 0.7 * counted[0]


def test_without_a_step_there_is_no_time_of_a_step():
    assert Costs().seconds_per_step() is None
