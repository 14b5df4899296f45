"""The multiscale cell: one operator across scales, its adjoint and its norm, and what comes out."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from deq_collapse.models import ConvCell, Equilibrium, Explicit, MultiscaleCell
from deq_collapse.models.cells.multiscale import Fusion
from deq_collapse.models.cells.scales import split

few = settings(max_examples=15)


def scales_of(shape, scales):
    return [(shape[0], shape[1] >> i, shape[2] >> i) for i in range(scales)]


fusions = st.builds(
    lambda channels, high, wide, scales, seed: (
        seed,
        scales_of((channels, high * 2 ** (scales - 1), wide * 2 ** (scales - 1)), scales),
    ),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(0, 2**31),
)


@few
@given(fusions, st.floats(0.1, 30))
def test_the_fusion_has_its_adjoint_its_bound_and_a_certificate_for_any_size(fusion, gain):
    seed, shapes = fusion
    torch.manual_seed(seed)
    of = Fusion(shapes, 0.9).double().eval()
    with torch.no_grad():
        for weight in of.weights:
            weight.mul_(gain)
    size = sum(math.prod(shape) for shape in shapes)
    matrix = of.linear(torch.eye(size, dtype=torch.float64)).T
    torch.testing.assert_close(of.adjoint(torch.eye(size, dtype=torch.float64)), matrix)
    norm = float(torch.linalg.matrix_norm(matrix.detach(), 2))
    assert float(of.scale().detach()) * norm <= 0.9
    assert of.norm_bound() == pytest.approx(float(of.scale().detach()) * norm, rel=1e-9)
    assert of.large_norm_bound() >= norm * (1 - 1e-12)


def test_one_scale_is_the_convolution_cell():
    torch.manual_seed(0)
    one, other = MultiscaleCell((3, 4, 4), scales=1).eval(), ConvCell((3, 4, 4)).eval()
    with torch.no_grad():
        other.inner.weight.copy_(one.branches[0].weight)
        other.outer.weight.copy_(one.fusion.weights[0])
    z, h0 = torch.randn(2, 5, 3, 4, 4)
    torch.testing.assert_close(one(z.flatten(1), h0).view_as(z), other(z, h0))
    assert one.lipschitz_bound() == pytest.approx(other.lipschitz_bound(), rel=1e-5)


def test_every_scale_sees_h0_averaged_down_to_it():
    cell, h0 = MultiscaleCell((2, 4, 8), scales=3), torch.randn(3, 2, 4, 8).relu()
    maps = split(cell(cell.start(h0), h0), cell.shapes)  # at z = 0 nothing but H0 is there
    assert [tuple(z.shape[1:]) for z in maps] == [(2, 4, 8), (2, 2, 4), (2, 1, 2)]
    for i, z in enumerate(maps):
        torch.testing.assert_close(z, F.avg_pool2d(h0, 2**i))


def test_the_global_average_of_the_output_is_that_of_each_scale():
    cell, state = MultiscaleCell((2, 4, 8), scales=3), torch.randn(5, 2 * (32 + 8 + 2))
    out = cell.output(state)
    assert out.shape == (5, 6, 1, 2)
    averages = torch.cat([z.mean((2, 3)) for z in split(state, cell.shapes)], 1)
    torch.testing.assert_close(out.mean((2, 3)), averages)


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 0), (0, 2), (2, 0)])
def test_every_scale_reaches_every_other(source, target):
    torch.manual_seed(0)
    cell, h0 = MultiscaleCell((16, 4, 4), scales=3).eval(), torch.randn(1, 16, 4, 4).relu()
    maps = split(cell.start(h0), cell.shapes)
    maps[source].normal_().abs_()
    moved = split(cell(torch.cat([z.flatten(1) for z in maps], 1), h0), cell.shapes)[target]
    still = split(cell(cell.start(h0), h0), cell.shapes)[target]
    assert (moved - still).abs().max() > 1e-3


def test_a_state_beyond_1024_numbers_is_certified_by_its_blocks():
    torch.manual_seed(0)
    cell = MultiscaleCell((14, 8, 8), scales=2, lipschitz=0.5).double().eval()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(10)
    assert 0.5 < cell.lipschitz_bound() < 0.5 * 1.8


def test_both_refinements_return_a_map_of_the_coarsest_size_and_tied_blocks_approach_the_fixed_point():
    torch.manual_seed(0)
    h0, make = torch.randn(3, 2, 4, 4), partial(MultiscaleCell, scales=2, lipschitz=0.5)
    equilibrium = Equilibrium((2, 4, 4), make, eval_tol=1e-6).eval()
    tied = Explicit((2, 4, 4), make, depth=25, tied=True).eval()
    tied.blocks[0].load_state_dict(equilibrium.cell.state_dict())
    assert tied(h0).shape == equilibrium(h0).shape == (3, 4, 2, 2)
    torch.testing.assert_close(tied(h0), equilibrium(h0), rtol=0, atol=1e-5)
    assert Explicit((2, 4, 4), make, depth=2)(h0).shape == (3, 4, 2, 2)
