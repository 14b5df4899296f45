"""Cells with normalisation inside, ours and a user's own: no bound, but the fixed point and its gradient."""

import copy
import pickle
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models import Cell, ConvCell, Equilibrium, Explicit, MDEQCell, ResidualCell, TransformerCell
from deq_collapse.models.cells.kernels import Kernel, largest_divisor

few = settings(max_examples=15)
PAGE = Path(__file__).parents[2] / "docs" / "cells.md"
TIGHT = {"tol": 1e-12, "backward_tol": 1e-12, "eval_tol": 1e-12, "max_iter": 2000, "eval_max_iter": 2000}


class GroupNormCell(Cell):
    """A user's cell: nothing but ``forward``, with modules that normalise."""

    def __init__(self, shape: tuple[int, ...], inner_width: int | None = None) -> None:
        super().__init__()
        inner = inner_width or shape[0]
        self.inner = nn.Conv2d(shape[0], inner, 3, padding=1)
        self.outer = nn.Conv2d(inner, shape[0], 3, padding=1)
        self.norm = nn.GroupNorm(1, shape[0])

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        return self.norm(h0 + 0.3 * self.outer(torch.tanh(self.inner(z))))


class LayerNormCell(Cell):
    """Another one, on vectors."""

    def __init__(self, shape: tuple[int, ...], inner_width: int | None = None) -> None:
        super().__init__()
        inner = inner_width or shape[0]
        self.mlp = nn.Sequential(nn.Linear(shape[0], inner), nn.GELU(), nn.Linear(inner, shape[0]))
        self.norm = nn.LayerNorm(shape[0])

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        return self.norm(h0 + 0.5 * z + self.mlp(z))


def settled_mdeq(shape: tuple[int, ...], **options) -> MDEQCell:
    """MDEQ's cell with norms that let H0 decide, so that plain iteration converges in float64."""
    cell = MDEQCell(shape, groups=2, **options)
    with torch.no_grad():
        cell.branches[0].n2.weight.mul_(10)
        cell.branches[1].n2.weight.mul_(0.1)
        cell.paths[0][1][1].weight.mul_(0.1)
        cell.paths[1][0][1].weight.mul_(10)
    return cell


CELLS = {
    "residual": (partial(ResidualCell, groups=2), (4, 3, 4)),
    "residual, weight norm": (partial(ResidualCell, groups=2, weight_norm=True), (4, 4, 4)),
    "residual, narrow": (partial(ResidualCell, groups=2, inner_width=3), (4, 4, 4)),
    "mdeq": (settled_mdeq, (4, 4, 4)),
    "mdeq, narrow, no weight norm": (partial(settled_mdeq, inner_width=3, weight_norm=False), (4, 4, 8)),
    "transformer": (partial(TransformerCell, init_std=0.1), (3, 8)),
    "transformer, narrow": (partial(TransformerCell, init_std=0.1, inner_width=6), (5, 4)),
    "a user's, group norm": (GroupNormCell, (4, 3, 3)),
    "a user's, layer norm": (LayerNormCell, (6,)),
}
each = pytest.mark.parametrize(("make", "shape"), CELLS.values(), ids=CELLS)


def made(make, shape, seed: int = 0) -> Cell:
    torch.manual_seed(seed)
    return make(shape).double()


def h0_of(shape, n: int = 3) -> Tensor:
    return torch.randn(n, *shape, dtype=torch.float64)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@each
@pytest.mark.parametrize("solver", ["anderson_relative", "fixed_point_relative"])
def test_ift_at_the_fixed_point_is_the_gradient_of_a_long_unroll(make, shape, solver):
    torch.manual_seed(0)
    refinement = Equilibrium(shape, make, solver, **TIGHT).double()
    cell, h0 = refinement.cell, h0_of(shape).requires_grad_()
    inputs = [h0, *cell.parameters()]
    out = refinement(h0)
    assert not refinement.forward_solve.missed.any()
    cotangent = torch.randn_like(out)
    ours = torch.autograd.grad((out * cotangent).sum(), inputs)
    f, z = cell.at(h0), cell.start(h0)
    for _ in range(300):
        z = f(z)
    unrolled = cell.output(z)
    torch.testing.assert_close(out, unrolled, rtol=0, atol=1e-9)
    for a, b in zip(ours, torch.autograd.grad((unrolled * cotangent).sum(), inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6 * max(1, float(b.abs().max())))


@each
def test_the_equilibrium_passes_gradcheck_in_h0_and_in_its_weights(make, shape):
    torch.manual_seed(0)
    refinement = Equilibrium(shape, make, **TIGHT).double()
    names, values = zip(*refinement.named_parameters(), strict=True)

    def function(h0, *weights):
        return torch.func.functional_call(refinement, dict(zip(names, weights, strict=True)), (h0,))

    inputs = [value.detach().clone().requires_grad_() for value in (h0_of(shape, 2), *values)]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@each
def test_derivatives_of_one_evaluation_pass_gradcheck_twice(make, shape):
    """The second ones are those of the Jacobian term."""
    cell, h0 = made(make, shape), h0_of(shape, 2)
    z = torch.randn_like(cell.start(h0))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(cell, [z.requires_grad_(), h0.requires_grad_()], fast_mode=True)


@each
def test_tied_blocks_are_so_many_iterations_and_matched_ones_have_the_parameters_of_one(make, shape):
    torch.manual_seed(0)
    tied = Explicit(shape, make, 5, tied=True).double()
    cell, h0 = tied.blocks[0], h0_of(shape)
    f, z = cell.at(h0), cell.lift(h0)
    for _ in range(5):
        z = f(z)
    torch.testing.assert_close(tied(h0), z if z.shape == h0.shape else cell.output(z))
    assert tied(h0).shape == Equilibrium(shape, make).double().eval()(h0).shape
    assert parameters(tied) == parameters(cell)


@each
def test_a_sample_does_not_depend_on_its_batch_mates(make, shape):
    cell, h0 = made(make, shape), h0_of(shape)
    z = torch.randn_like(cell.start(h0))
    alone = torch.cat([cell.at(h)(s) for s, h in zip(z.split(1), h0.split(1), strict=True)])
    torch.testing.assert_close(cell.at(h0)(z), alone)


@each
def test_nothing_is_promised_and_a_copy_computes_the_same(make, shape):
    cell, h0 = made(make, shape), h0_of(shape)
    z = torch.randn_like(cell.start(h0))
    assert cell.lipschitz_bound() is None
    for twin in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert torch.equal(twin(z, h0), cell(z, h0))


@pytest.mark.parametrize("weight_norm", [False, True])
def test_the_residual_cell_is_its_formula(weight_norm):
    cell = made(partial(ResidualCell, groups=2, init_std=0.1, weight_norm=weight_norm), (4, 3, 3))
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    z, h0 = torch.randn(2, 5, 4, 3, 3, dtype=torch.float64)
    A, B = cell.inner(), cell.outer()
    y = cell.n1(F.relu(F.conv2d(z, A, padding=1)))
    expected = cell.n3(F.relu(z + cell.n2(h0 + F.conv2d(y, B, padding=1))))
    torch.testing.assert_close(cell(z, h0), expected)


def test_the_cell_of_the_page_on_cells_works_in_both_refinements():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    shape, h0 = (8, 3, 3), torch.randn(2, 8, 3, 3)
    solved = Equilibrium(shape, names["NormCell"]).eval()
    assert solved(h0).shape == Explicit(shape, names["NormCell"], 3, tied=True)(h0).shape == h0.shape
    assert not solved.forward_solve.missed.any()


def test_a_normalised_kernel_starts_as_drawn_and_has_the_length_it_is_given():
    torch.manual_seed(0)
    free = Kernel(3, 5, 3, 0.1)
    torch.manual_seed(0)
    kernel = Kernel(3, 5, 3, 0.1, weight_norm=True)
    torch.testing.assert_close(kernel(), free())
    assert parameters(kernel) == parameters(free) + 5
    with torch.no_grad():
        kernel.weight.mul_(7)  # the direction alone matters
        kernel.length.fill_(2)
    torch.testing.assert_close(kernel().flatten(1).norm(dim=1), torch.full((5,), 2.0))
    (gradient,) = torch.autograd.grad((kernel() * torch.randn(5, 3, 3, 3)).sum(), kernel.weight)
    along = (gradient * kernel.weight).sum((1, 2, 3)) / gradient.flatten(1).norm(dim=1)
    torch.testing.assert_close(along, torch.zeros(5), atol=1e-5, rtol=0)


@few
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100), gain=st.floats(0.1, 100))
def test_the_residual_cell_maps_everything_into_one_ball(seed, scale, gain):
    """So it has a fixed point (Brouwer), whatever its kernels."""
    cell = made(partial(ResidualCell, groups=2, init_std=gain), (4, 3, 3), seed)
    z, h0 = scale * torch.randn(2, 5, 4, 3, 3, dtype=torch.float64)
    assert cell(z, h0).unflatten(1, (2, 2)).square().mean((2, 3, 4)).max() <= 1


@few
@given(seed=st.integers(0, 2**31))
def test_with_mirrored_kernels_the_fixed_point_of_a_mirrored_map_is_the_mirrored_one(seed):
    torch.manual_seed(seed)
    refinement = Equilibrium((4, 3, 4), partial(ResidualCell, groups=2), **TIGHT).double().eval()
    h0 = h0_of((4, 3, 4))
    plain = refinement(h0)
    with torch.no_grad():
        for kernel in (refinement.cell.inner, refinement.cell.outer):
            kernel.weight.copy_(kernel.weight.flip(3))
    torch.testing.assert_close(refinement(h0.flip(3)), plain.flip(3))


@pytest.mark.parametrize("weight_norm", [False, True])
def test_with_first_weights_the_residual_cell_of_a_studys_size_is_solved_soon(weight_norm):
    """With weights ten times as large no solver finds a fixed point of it."""
    evaluations = {}
    for std in (0.01, 0.1):
        torch.manual_seed(0)
        make = partial(ResidualCell, init_std=std, weight_norm=weight_norm)
        refinement = Equilibrium((48, 4, 4), make).eval()
        refinement(torch.randn(16, 48, 4, 4).relu())
        evaluations[std] = refinement.forward_solve.evaluations
        assert bool(refinement.forward_solve.missed.any()) == (std == 0.1)
    assert evaluations[0.01] < 25


def test_the_jacobian_term_reaches_the_residual_cells_weights():
    torch.manual_seed(0)
    refinement = Equilibrium((8, 4, 4), ResidualCell, gradient="phantom(5, 0.5)", jacobian_weight=0.5)
    refinement(torch.randn(4, 8, 4, 4).relu())
    gradients = torch.autograd.grad(refinement.jacobian, list(refinement.parameters()), allow_unused=True)
    assert all(g is not None and g.isfinite().all() for g in gradients[:2])


@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize("channels", [48, 64, 128])
def test_four_matched_residual_blocks_have_the_parameters_of_one_within_a_per_cent(channels, weight_norm):
    make = partial(ResidualCell, weight_norm=weight_norm)
    matched = Explicit((channels, 2, 2), make, 4, matched=True)
    assert parameters(matched) == pytest.approx(parameters(make((channels, 2, 2))), rel=0.01)
    h0 = torch.randn(2, channels, 2, 2)
    assert matched(h0).shape == h0.shape


def test_maps_keep_their_layout_through_the_residual_cell():
    cell = ResidualCell((8, 4, 4)).to(memory_format=torch.channels_last)
    z, h0 = (t.contiguous(memory_format=torch.channels_last) for t in torch.randn(2, 3, 8, 4, 4))
    assert cell(z, h0).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("lipschitz", [None, 0.9])
def test_first_weights_of_a_convolution_cell_have_the_deviation_that_is_asked_for(lipschitz):
    torch.manual_seed(0)
    cell = ConvCell((48, 4, 4), lipschitz, init_std=0.02)
    for weight in (cell.inner.weight, cell.outer.weight):
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.02)


@given(of=st.integers(1, 200), at_most=st.integers(1, 50))
def test_the_largest_divisor_divides_and_none_larger_does(of, at_most):
    found = largest_divisor(of, at_most)
    assert of % found == 0
    assert not any(of % larger == 0 for larger in range(found + 1, min(of, at_most) + 1))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (partial(ResidualCell, (6, 2, 2)), "groups is 8, but the 6 channels of H0 must be divisible by it"),
        (partial(ResidualCell, (6, 2, 2), groups=0), "groups is 0"),
        (partial(ResidualCell, (8, 2, 2), init_std=0), "init_std is 0"),
        (partial(ResidualCell, (8, 2, 2), inner_width=0), "inner_width is 0"),
        (partial(ResidualCell, (8,)), r"ResidualCell works on maps \(C, H, W\)"),
        (partial(ConvCell, (8, 2, 2), None, init_std=-1), "init_std is -1"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_in_one_sentence(wrong, said):
    with pytest.raises(UserError, match=said):
        wrong()
