"""MDEQ's cell: its formula, what reaches which scale, and its twins."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models import Equilibrium, Explicit, MDEQCell
from deq_collapse.models.cells.scales import join, split

few = settings(max_examples=10)


def made(shape=(4, 4, 8), scales: int = 2, std: float = 0.2, seed: int = 0, **options) -> MDEQCell:
    torch.manual_seed(seed)
    return MDEQCell(shape, scales, groups=2, init_std=std, **options).double()


def group_norm(x: Tensor, groups: int) -> Tensor:
    return F.group_norm(x, groups)


@pytest.mark.parametrize("weight_norm", [True, False])
def test_it_is_the_published_formula(weight_norm):
    """Norms' affine maps are the identity at first."""
    cell = made(weight_norm=weight_norm)
    h0 = torch.randn(3, 4, 4, 8, dtype=torch.float64)
    state = torch.randn_like(cell.start(h0))
    fine, coarse = split(state, cell.shapes)

    def block(z, x, branch):
        y = F.relu(group_norm(F.conv2d(z, branch.inner(), padding=1), 2))
        return group_norm(F.relu(z + group_norm(x + F.conv2d(y, branch.outer(), padding=1), 2)), 2)

    fine, coarse = block(fine, h0, cell.branches[0]), block(coarse, 0, cell.branches[1])
    down = group_norm(F.conv2d(fine, cell.paths[1][0][0].weight, stride=2, padding=1), 2)
    up = group_norm(F.conv2d(coarse, cell.paths[0][1][0].weight), 2)
    up = up.repeat_interleave(2, 2).repeat_interleave(2, 3)
    fused = [fine + up, down + coarse]
    expected = [group_norm(F.conv2d(F.relu(y), mix()), 1) for y, mix in zip(fused, cell.mixes, strict=True)]
    torch.testing.assert_close(cell(state, h0), join(expected))


def test_a_chain_of_strided_convolutions_leads_two_scales_down():
    chain = made((4, 8, 8), scales=3).paths[2][0]
    assert [type(layer).__name__ for layer in chain] == ["Conv2d", "GroupNorm", "ReLU", "Conv2d", "GroupNorm"]
    assert chain(torch.randn(1, 4, 8, 8, dtype=torch.float64)).shape == (1, 4, 2, 2)


@pytest.mark.parametrize("source", [0, 1, 2])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_every_scale_reaches_every_other(source, target):
    cell = made((4, 8, 8), scales=3)
    h0 = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    state = torch.randn_like(cell.start(h0))
    maps = [z.clone() for z in split(state, cell.shapes)]
    maps[source] += torch.randn_like(maps[source])
    moved, still = (split(cell(z, h0), cell.shapes)[target] for z in (join(maps), state))
    assert (moved - still).abs().max() > 1e-3


@few
@given(seed=st.integers(0, 2**31), std=st.floats(0.01, 10))
def test_it_maps_everything_into_one_ball(seed, std):
    cell = made(std=std, seed=seed)
    h0 = 10 * torch.randn(3, 4, 4, 8, dtype=torch.float64)
    maps = split(cell(10 * torch.randn_like(cell.start(h0)), h0), cell.shapes)
    assert all(z.square().mean((1, 2, 3)).max() <= 1 for z in maps)


@pytest.mark.parametrize("depth", [1, 3])
def test_an_explicit_stack_trains_every_weight_and_returns_what_an_equilibrium_does(depth):
    stack = Explicit((4, 4, 8), partial(MDEQCell, groups=2), depth, tied=True)
    h0 = torch.randn(3, 4, 4, 8)
    out = stack(h0)
    assert out.shape == Equilibrium((4, 4, 8), partial(MDEQCell, groups=2)).eval()(h0).shape == (3, 8, 2, 4)
    (out * torch.randn_like(out)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in stack.parameters())


def test_the_global_average_of_its_output_is_that_of_each_scale():
    cell = made((4, 8, 8), scales=3)
    state = torch.randn(5, 4 * (64 + 16 + 4), dtype=torch.float64)
    averages = torch.cat([z.mean((2, 3)) for z in split(state, cell.shapes)], 1)
    torch.testing.assert_close(cell.output(state).mean((2, 3)), averages)


@pytest.mark.parametrize("channels", [24, 32])
def test_four_matched_ones_have_the_parameters_of_one_within_a_per_cent(channels):
    counts = [
        sum(p.numel() for p in Explicit((channels, 4, 4), MDEQCell, **options).parameters())
        for options in ({}, {"depth": 4, "matched": True})
    ]
    assert counts[1] == pytest.approx(counts[0], rel=0.01)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (partial(MDEQCell, (8, 4, 6), scales=3), "scales is 3, .* at least 2, .* 4x6 map"),
        (partial(MDEQCell, (8, 4, 4), scales=1), "scales is 1, but it is at least 2"),
        (partial(MDEQCell, (6, 4, 4)), "groups is 8"),
        (partial(MDEQCell, (8, 4, 4), init_std=0), "init_std is 0"),
        (partial(MDEQCell, (8, 4, 4), inner_width=0), "inner_width is 0"),
        (partial(MDEQCell, (8,)), r"MDEQCell works on maps \(C, H, W\)"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_in_one_sentence(wrong, said):
    with pytest.raises(UserError, match=said):
        wrong()
