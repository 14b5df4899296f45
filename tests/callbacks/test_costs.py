"""What a run costs, against counts by hand."""

from functools import partial

import pytest
import torch
from torch import nn

from deq_collapse.callbacks import Costs
from deq_collapse.callbacks.costs import flops_per_image, saved_activation_bytes
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


def test_without_a_step_there_is_no_time_of_a_step():
    assert Costs().seconds_per_step() is None
