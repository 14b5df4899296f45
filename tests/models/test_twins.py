"""The explicit twins of an equilibrium: one block, tied blocks, and matched blocks of equal parameters."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from deq_collapse.callbacks.costs import flops_per_image, saved_activation_bytes
from deq_collapse.errors import UserError
from deq_collapse.models import (
    Cell,
    ConvCell,
    Equilibrium,
    Explicit,
    LinearCell,
    ResidualCell,
)

FREE = partial(ConvCell, lipschitz=None)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class Biased(Cell):
    """A cell on vectors whose parameters are not proportional to its inner width, but affine in it."""

    def __init__(self, shape: tuple[int, ...], inner_width: int | None = None) -> None:
        super().__init__()
        self.inner = nn.Linear(shape[0], inner_width or 2 * shape[0])
        self.outer = nn.Linear(inner_width or 2 * shape[0], shape[0])

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        return torch.tanh(h0 + self.outer(torch.tanh(self.inner(z))))


@given(depth=st.integers(1, 6), lipschitz=st.sampled_from([None, 0.5]), seed=st.integers(0, 99))
def test_tied_blocks_are_fixed_point_iterations_from_h0(depth, lipschitz, seed):
    torch.manual_seed(seed)
    tied = Explicit((3, 4, 4), partial(ConvCell, lipschitz=lipschitz), depth, tied=True).eval()
    h0 = torch.randn(2, 3, 4, 4)
    z, f = h0, tied.blocks[0].at(h0)
    for _ in range(depth):
        z = f(z)
    assert torch.equal(tied(h0), z)
    assert parameters(tied) == parameters(FREE((3, 4, 4)))


def test_tied_blocks_of_a_contraction_approach_its_fixed_point_as_fast_as_banach_says():
    torch.manual_seed(0)
    equilibrium = Equilibrium((4, 4, 4), partial(ConvCell, lipschitz=0.5), eval_tol=1e-7).eval()
    h0 = torch.randn(3, 4, 4, 4)
    errors = []
    for depth in range(1, 12):
        tied = Explicit((4, 4, 4), partial(ConvCell, lipschitz=0.5), depth, tied=True).eval()
        tied.blocks[0].load_state_dict(equilibrium.cell.state_dict())
        errors.append((tied(h0) - equilibrium(h0)).flatten(1).norm(dim=1))
    start = (h0 - equilibrium(h0)).flatten(1).norm(dim=1)
    for depth, error in enumerate(errors, 1):
        assert (error <= 1.01 * 0.5**depth * start + 1e-5).all()


def test_tied_blocks_have_the_jacobian_term_of_the_equilibrium_that_they_approach():
    """For a linear cell it is ``||A||_F^2 / d`` wherever it is taken, and reaches the weights alone."""
    torch.manual_seed(0)
    tied = Explicit((6,), partial(LinearCell, lipschitz=None), depth=3, tied=True, jacobian_weight=0.5)
    h0 = torch.randn(20_000, 6)
    z = tied(h0)
    A = tied.blocks[0].A.weight
    torch.testing.assert_close(tied.jacobian.detach(), A.detach().square().sum() / 6, rtol=0.05, atol=0)
    (gradient,) = torch.autograd.grad(tied.jacobian, A)
    torch.testing.assert_close(gradient, 2 * A.detach() / 6, rtol=0, atol=0.05 * float(A.detach().norm()))
    assert torch.equal(z, Explicit.forward(copy.deepcopy(tied).eval(), h0))


@pytest.mark.parametrize("refinement", [Explicit, Equilibrium])
def test_the_jacobian_term_can_be_taken_under_autocast(refinement):
    part = {"block": ConvCell, "depth": 2, "tied": True} if refinement is Explicit else {"cell": ConvCell}
    made = refinement((3, 4, 4), jacobian_weight=1.0, **part)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made(nn.Conv2d(2, 3, 3, padding=1)(torch.randn(4, 2, 4, 4)))
    made.jacobian.backward()
    assert all(p.grad.isfinite().all() for p in made.parameters())


@pytest.mark.parametrize("state", ["eval", "no_grad", "no weight"])
def test_the_jacobian_term_costs_nothing_where_it_is_not_asked_for(state):
    weight = 0.0 if state == "no weight" else 1.0
    tied = Explicit((6,), LinearCell, depth=2, tied=True, jacobian_weight=weight)
    calls = []
    tied.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    tied.train(state != "eval")
    with torch.set_grad_enabled(state != "no_grad"):
        tied(torch.randn(4, 6))
    assert tied.jacobian is None
    assert len(calls) == 2


@pytest.mark.parametrize("gradient", ["jfb", "phantom(3, 0.4)"])
def test_an_approximate_gradient_is_that_of_its_steps_from_the_features_which_stay_the_same(gradient):
    torch.manual_seed(0)
    tied = Explicit((3, 4, 4), FREE, depth=4, tied=True, gradient=gradient).double()
    h0 = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    exact = Explicit((3, 4, 4), FREE, depth=4, tied=True).double()
    exact.load_state_dict(tied.state_dict())
    features = tied(h0)
    assert torch.equal(features, exact(h0))

    weights, after = list(tied.parameters()), features.detach()
    given = torch.autograd.grad(features, [h0, *weights], grad_outputs=features.detach().cos())
    steps, tau = (1, 1.0) if gradient == "jfb" else (3, 0.4)
    for _ in range(steps):
        after = (1 - tau) * after + tau * tied.blocks[0](after, h0)
    by_hand = torch.autograd.grad(after, [h0, *weights], grad_outputs=features.detach().cos())
    whole = torch.autograd.grad(exact(h0).sin().sum(), [h0, *exact.parameters()])
    for a, b, other in zip(given, by_hand, whole, strict=True):
        torch.testing.assert_close(a, b)
        assert not torch.allclose(a, other)


def test_deep_tied_blocks_with_the_gradient_of_their_equilibrium_are_it():
    torch.manual_seed(0)
    cell, h0 = partial(FREE, init_std=0.1), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    equilibrium = Equilibrium((3, 4, 4), cell, gradient="phantom(3, 0.4)", tol=1e-12).double()
    tied = Explicit((3, 4, 4), cell, depth=60, tied=True, gradient="phantom(3, 0.4)").double()
    tied.blocks[0].load_state_dict(equilibrium.cell.state_dict())
    for refinement in (equilibrium, tied):
        refinement(h0).sin().sum().backward()
    for a, b in zip(tied.parameters(), equilibrium.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-10)


def test_an_approximate_gradient_costs_nothing_where_none_is_taken_and_saves_activations():
    options = {"depth": 12, "tied": True}
    approximate = Explicit((3, 4, 4), FREE, gradient="phantom(5, 0.5)", **options)
    calls, h0 = [], torch.randn(2, 3, 4, 4)
    approximate.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        approximate(h0)
    assert len(calls) == 12
    exact = Explicit((3, 4, 4), FREE, **options)
    assert saved_activation_bytes(approximate, h0) < 0.7 * saved_activation_bytes(exact, h0)
    assert approximate.extra_repr() == "depth=12, tied, gradient phantom(5, 0.5)"


def test_an_approximate_gradient_reaches_every_weight_under_autocast():
    """Weights that autocast converted in the steps without a gradient are kept for those with one."""
    torch.manual_seed(0)
    tied = Explicit((8, 4, 4), ResidualCell, depth=4, tied=True, gradient="phantom(3, 0.5)")
    h0, norms = torch.randn(2, 8, 4, 4), []
    for enabled in (False, True):
        tied.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            tied(h0).float().sin().sum().backward()
        norms.append(torch.stack([p.grad.norm() for p in tied.parameters()]))
    torch.testing.assert_close(*norms, rtol=0.1, atol=0)


def test_it_goes_with_the_jacobian_term_and_with_copies():
    torch.manual_seed(0)
    options = {"depth": 3, "tied": True, "jacobian_weight": 1.0}
    h0 = torch.randn(4, 6)
    terms = []
    for gradient in (None, "jfb"):
        torch.manual_seed(1)
        tied = copy.deepcopy(
            Explicit((6,), partial(LinearCell, lipschitz=None), gradient=gradient, **options)
        )
        tied(h0)
        terms.append(tied.jacobian)
    assert torch.equal(*terms)


@pytest.mark.parametrize(("tied", "calls"), [(True, [4]), (False, [1, 1, 1, 1])])
def test_a_block_is_called_once_per_application(tied, calls):
    twin = Explicit((3, 2, 2), FREE, 4, tied=tied)
    called = []
    for block in twin.blocks:
        block.register_forward_hook(lambda block, _inputs, _output: called.append(block))
    twin(torch.randn(1, 3, 2, 2))
    assert [called.count(block) for block in twin.blocks] == calls


def test_untied_blocks_have_weights_of_their_own_and_are_applied_in_order():
    torch.manual_seed(0)
    stack, h0 = Explicit((3, 4, 4), FREE, 3), torch.randn(2, 3, 4, 4)
    one, two, three = stack.blocks
    assert torch.equal(stack(h0), three(two(one(h0, h0), h0), h0))
    assert parameters(stack) == 3 * parameters(one)
    assert not torch.equal(one.inner.weight, two.inner.weight)


@given(channels=st.integers(1, 40), depth=st.integers(1, 12))
def test_matched_convolution_blocks_have_exactly_the_parameters_of_one(channels, depth):
    if depth > 1.01 * channels:
        with pytest.raises(UserError, match=f"{depth} matched blocks have .* more than 1% away"):
            Explicit((channels, 2, 2), FREE, depth, matched=True)
        return
    matched = Explicit((channels, 2, 2), FREE, depth, matched=True)
    assert len(matched.blocks) == depth
    assert parameters(matched) == parameters(FREE((channels, 2, 2)))
    widths = [block.inner.out_channels for block in matched.blocks]
    assert sum(widths) == channels
    assert max(widths) - min(widths) <= 1


@given(width=st.integers(2, 60), depth=st.integers(2, 6))
def test_matched_blocks_of_any_kind_are_the_nearest_or_refused(width, depth):
    wanted, one = parameters(Biased((width,))), parameters(Biased((width,), 1))
    step = parameters(Biased((width,), 2)) - one
    nearest = min(abs(depth * one + step * extra - wanted) for extra in range(2 * width + 1))
    if nearest > 0.01 * wanted:
        with pytest.raises(UserError, match="more than 1% away"):
            Explicit((width,), Biased, depth, matched=True)
    else:
        matched = Explicit((width,), Biased, depth, matched=True)
        assert abs(parameters(matched) - wanted) == nearest


def test_matched_blocks_of_512_channels_are_found_without_building_large_ones():
    matched = Explicit((512, 4, 4), FREE, 4, matched=True)
    assert matched.extra_repr() == "depth=4, inner widths 4 x 128"
    assert parameters(matched) == parameters(FREE((512, 4, 4)))


def test_matching_draws_no_random_numbers_of_the_caller():
    def blocks(make):
        torch.manual_seed(0)
        return make().blocks[0].inner.weight

    narrow = blocks(lambda: Explicit((6, 2, 2), partial(FREE, inner_width=2), 3))
    assert torch.equal(narrow, blocks(lambda: Explicit((6, 2, 2), FREE, 3, matched=True)))


def test_flops_of_tied_and_matched_blocks_counted_by_hand():
    one = 2 * 2 * (4 * 2 * 2) * (4 * 3 * 3)  # two convolutions of a multiply-add for every output and entry
    h0 = torch.randn(5, 4, 2, 2)
    assert flops_per_image(Explicit((4, 2, 2), FREE), h0) == one
    assert flops_per_image(Explicit((4, 2, 2), FREE, 3, tied=True), h0) == 3 * one
    assert flops_per_image(Explicit((4, 2, 2), FREE, 3), h0) == 3 * one
    assert flops_per_image(Explicit((4, 2, 2), FREE, 3, matched=True), h0) == one


def test_the_state_of_tied_blocks_is_that_of_one_block():
    assert (
        Explicit((3, 2, 2), FREE, 5, tied=True).state_dict().keys()
        == Explicit((3, 2, 2), FREE).state_dict().keys()
    )


class NoWidth(Cell):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))

    def forward(self, z: Tensor, h0: Tensor) -> Tensor:
        return h0


@pytest.mark.parametrize(
    ("block", "options", "said"),
    [
        (FREE, {"depth": 0}, "depth is 0, but .* at least once"),
        (FREE, {"depth": 3, "tied": True, "matched": True}, "leave out matched"),
        (NoWidth, {"depth": 3, "matched": True}, "inner_width, which NoWidth does not take"),
        (FREE, {"depth": 5, "matched": True}, "5 matched blocks have 180 parameters .* one block has 72"),
        (partial(FREE, inner_width=0), {}, "inner_width is 0"),
        (FREE, {"depth": 3, "tied": True, "gradient": "ift"}, r"is ift, but it is jfb or phantom\(k, tau\)"),
        (FREE, {"depth": 3, "tied": True, "gradient": "phantom(0, 1)"}, "phantom.* at least 1"),
        (FREE, {"depth": 3, "gradient": "jfb"}, "blocks here have weights of their own: set tied"),
    ],
)
def test_a_twin_that_cannot_be_is_refused(block, options, said):
    with pytest.raises(UserError, match=said):
        Explicit((2, 2, 2), block, **options)
