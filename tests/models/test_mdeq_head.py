"""MDEQ's small network for CIFAR-10 as published: dropout within a solve, scales whole, its head."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models import ConvEncoder, Equilibrium, MDEQCell, MDEQHead, Network
from deq_collapse.models.cells.scales import fold, split, unfold

few = settings(max_examples=10)


def test_one_draw_drops_whole_channels_of_a_sample_through_a_solve():
    torch.manual_seed(0)
    cell = MDEQCell((4, 4, 8), groups=2, dropout=0.5).double()
    h0 = torch.randn(3, 4, 4, 8, dtype=torch.float64)
    state = torch.randn_like(cell.start(h0))
    f = cell.at(h0)
    assert torch.equal(f(state), f(state))
    assert not torch.equal(f(state), cell.at(h0)(state))
    cell.eval()
    assert torch.equal(cell.at(h0)(state), cell.at(h0)(state))


def test_what_is_dropped_is_that_of_its_formula():
    """Of every channel of ``B ...`` all pixels or none are kept, those kept are scaled by 1 / (1 - p)."""
    torch.manual_seed(0)
    cell = MDEQCell((4, 4, 8), groups=2, dropout=0.5).double()
    block, z = cell.branches[1], torch.randn(3, 4, 2, 4, dtype=torch.float64)
    seen = []
    block.n2.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    block.at(3, None)(z)
    block.eval().at(3, None)(z)
    dropped, whole = seen
    ratio = dropped / whole
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    assert {round(value, 6) for value in ratio.flatten().tolist()} == {0.0, 2.0}


def test_training_differs_between_calls_and_a_gradient_belongs_to_its_own_draw():
    torch.manual_seed(0)
    make = partial(MDEQCell, groups=2, dropout=0.25)
    refinement = Equilibrium((4, 4, 4), make, gradient="jfb", tol=1e-10, max_iter=2000).double()
    with torch.no_grad():  # norms that let H0 decide, so that there is a fixed point to be found
        for kernel, gain in (("branches.0.n2", 10), ("branches.1.n2", 0.1), ("paths.0.1.1", 0.1)):
            refinement.cell.get_submodule(kernel).weight.mul_(gain)
        refinement.cell.paths[1][0][1].weight.mul_(10)
    h0 = torch.randn(2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(1)
    first = refinement(h0)
    assert not refinement.forward_solve.missed.any()
    (ours,) = torch.autograd.grad(first.sum(), h0)
    torch.manual_seed(1)
    step = refinement.cell.output(refinement.cell.at(h0)(refinement.state))
    torch.testing.assert_close(step, first, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(step.sum(), h0)[0], ours, rtol=0, atol=1e-6)
    assert not torch.equal(refinement(h0), first)


@few
@given(scales=st.integers(2, 4), channels=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_folding_keeps_every_number_and_is_undone(scales, channels, seed):
    torch.manual_seed(seed)
    side = 2 ** (scales - 1)
    maps = [torch.randn(2, channels, 2 * side >> i, 3 * side >> i) for i in range(scales)]
    folded = fold(maps)
    assert folded.shape == (2, channels * sum(4**i for i in range(scales)), 2, 3)
    assert sorted(folded.flatten().tolist()) == sorted(torch.cat([z.flatten() for z in maps]).tolist())
    for ours, theirs in zip(unfold(folded, scales), maps, strict=True):
        assert torch.equal(ours, theirs)


def test_a_folded_output_holds_the_state():
    torch.manual_seed(0)
    cell = MDEQCell((4, 8, 8), scales=3, groups=2, folded=True)
    state = torch.randn_like(cell.start(torch.zeros(2, 4, 8, 8)))
    assert cell.output(state).shape == (2, 4 * 21, 2, 2)
    for ours, z in zip(unfold(cell.output(state), 3), split(state, cell.shapes), strict=True):
        assert torch.equal(ours, z)


def test_the_head_is_its_formula():
    torch.manual_seed(0)
    head = MDEQHead(3, inner=(2, 4), width=5).double()
    maps = [torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.randn(6, 3, 4, 4, dtype=torch.float64)]

    def normed(x):
        return F.batch_norm(x, None, None, training=True)

    def block(x, at):
        y = F.relu(normed(F.conv2d(x, at.conv1.weight)))
        y = F.relu(normed(F.conv2d(y, at.conv2.weight, padding=1)))
        return F.relu(normed(F.conv2d(y, at.conv3.weight)) + normed(F.conv2d(x, at.downsample[0].weight)))

    down, last = head.downs[0][0], head.last[0]
    y = F.relu(normed(F.conv2d(block(maps[0], head.blocks[0]), down.weight, down.bias, 2, 1)))
    y = block(maps[1], head.blocks[1]) + y
    expected = F.relu(normed(F.conv2d(y, last.weight, last.bias))).mean((2, 3))
    torch.testing.assert_close(head(fold(maps)), expected)


def test_the_published_network_has_the_parameters_of_its_authors_code():
    """158,890 there too; 170 thousand in the paper."""
    network = Network(
        (3, 32, 32),
        10,
        partial(ConvEncoder, width=24, depth=2, stride=1),
        partial(Equilibrium, cell=partial(MDEQCell, dropout=0.25, folded=True)),
        MDEQHead(24),
        nn.Linear,
    )
    assert network.parameter_counts()["total"] == 158_890
    assert network.num_features == 200


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: MDEQCell((8, 4, 4), dropout=1.0), "below 1"),
        (lambda: MDEQHead(0), "at least 1"),
        (lambda: MDEQHead(3, inner=(4,)), "at least two scales"),
        (lambda: MDEQHead(3)(torch.zeros(1, 16, 4, 4)), "a multiple of 5 channels"),
        (lambda: MDEQHead(3)(torch.zeros(1, 20, 4, 4)), "of 3 channels, but they have 4"),
        (lambda: ConvEncoder((3, 8, 8), stride=0), "stride 0"),
    ],
)
def test_impossible_arguments_are_refused(make, told):
    with pytest.raises(UserError, match=told):
        make()
