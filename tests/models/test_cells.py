"""The bounded convolution and the contractive cell, against the dense matrix of the same linear map."""

import copy
import pickle
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from deq_collapse.models import ConvCell, Equilibrium, Explicit
from deq_collapse.models.cells import BoundedConv2d

few = settings(max_examples=25, deadline=None, derandomize=True)


def dense(weight: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The matrix of the zero-padded convolution on flattened maps."""
    basis = torch.eye(shape[0] * shape[1] * shape[2], dtype=weight.dtype).view(-1, *shape)
    return F.conv2d(basis, weight, padding=1).flatten(1).T


def largest(weight: Tensor, shape: tuple[int, int, int]) -> Tensor:
    return torch.linalg.matrix_norm(dense(weight, shape), 2)


def bounded(shape: tuple[int, int, int], bound: float, seed: int, gain: float) -> BoundedConv2d:
    torch.manual_seed(seed)
    conv = BoundedConv2d(shape, bound).double()
    with torch.no_grad():
        conv.weight.mul_(gain)
    conv.power_iteration(1000)
    return conv


shapes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


@few
@given(shape=shapes, bound=st.floats(0.1, 2), seed=st.integers(0, 2**31), gain=st.floats(0.1, 100))
def test_the_operator_norm_never_exceeds_its_bound(shape, bound, seed, gain):
    conv = bounded(shape, bound, seed, gain)
    assert largest(conv.bounded_weight(), shape) <= bound * (1 + 1e-3)
    # The estimate comes from below, and close.
    true = largest(conv.weight, shape)
    assert true * (1 - 1e-3) <= conv.operator_norm() <= true * (1 + 1e-9)


def test_a_weight_within_the_bound_is_left_as_it_is():
    conv = bounded((3, 4, 5), 100.0, seed=0, gain=1.0)
    assert torch.equal(conv.bounded_weight(), conv.weight)


def test_the_norm_bounded_is_the_operators_not_the_reshaped_kernels():
    """Normalising the kernel's matrix to 0.9 is what torch's spectral_norm does: it bounds nothing here."""
    conv = bounded((3, 6, 6), 0.9, seed=0, gain=100.0)
    kernel = conv.weight.flatten(1)
    assert largest(0.9 * conv.weight / torch.linalg.matrix_norm(kernel, 2), (3, 6, 6)) > 1.1
    assert largest(conv.bounded_weight(), (3, 6, 6)) <= 0.9 * (1 + 1e-6)


def test_the_estimate_follows_weights_that_train():
    """One step of power iteration per training pass lags behind SGD and catches up as weights settle."""
    shape = (4, 5, 5)
    torch.manual_seed(0)
    cell, h0 = ConvCell(shape, 0.9).train(), torch.randn(8, *shape)
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.5, momentum=0.9)
    for _ in range(100):
        optimizer.zero_grad()
        (-cell(torch.randn(8, *shape), h0).square().mean()).backward()
        optimizer.step()
    for conv in (cell.inner, cell.outer):
        assert largest(conv.weight, shape) > 1.5 * conv.bound  # training pushed against the bound
        assert largest(conv.bounded_weight(), shape) <= conv.bound * 1.25
    for _ in range(100):
        cell(h0, h0)
    for conv in (cell.inner, cell.outer):
        assert largest(conv.bounded_weight(), shape) <= conv.bound * 1.01


def test_the_gradient_passes_through_the_scaling():
    """It is that of ``W bound / sigma_max(W)``, whose sigma_max is torch's own of the dense matrix."""
    shape, bound = (2, 3, 4), 0.9
    conv = bounded(shape, bound, seed=0, gain=10.0)
    cotangent = torch.randn_like(conv.weight)
    (ours,) = torch.autograd.grad((conv.bounded_weight() * cotangent).sum(), conv.weight)
    scaled = conv.weight * bound / largest(conv.weight, shape)
    (true,) = torch.autograd.grad((scaled * cotangent).sum(), conv.weight)
    torch.testing.assert_close(ours, true)

    def function(weight: Tensor) -> Tensor:
        return torch.func.functional_call(_Scaled(conv), {"conv.weight": weight})

    assert torch.autograd.gradcheck(function, conv.weight.detach().clone().requires_grad_())


class _Scaled(torch.nn.Module):
    def __init__(self, conv: BoundedConv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self) -> Tensor:
        return self.conv.bounded_weight()


def test_weights_of_zero_have_gradients_and_are_bounded_once_they_grow():
    """A last convolution that starts at zero is a common choice."""
    shape = (2, 4, 4)
    cell = ConvCell(shape, 0.9)
    torch.nn.init.zeros_(cell.outer.weight)
    cell.train()(torch.randn(3, *shape), torch.randn(3, *shape)).sum().backward()
    assert cell.outer.weight.grad.isfinite().all()
    assert cell.outer.weight.grad.any()
    with torch.no_grad():
        cell.outer.weight.normal_().mul_(100)
    cell.outer.power_iteration(500)
    assert largest(cell.outer.bounded_weight(), shape) <= cell.outer.bound * (1 + 1e-3)


@few
@given(seed=st.integers(0, 2**31), lipschitz=st.floats(0.05, 0.99), gain=st.floats(0.1, 100))
def test_the_cell_is_a_contraction(seed, lipschitz, gain):
    shape = (2, 3, 4)
    torch.manual_seed(seed)
    cell = ConvCell(shape, lipschitz).double().eval()
    for conv in (cell.inner, cell.outer):
        conv.weight.data.mul_(gain)
        conv.power_iteration(1000)
    a, b, h0 = (10 * torch.randn(6, *shape, dtype=torch.float64) for _ in range(3))
    apart = (a - b).flatten(1).norm(dim=1)
    assert ((cell(a, h0) - cell(b, h0)).flatten(1).norm(dim=1) <= lipschitz * (1 + 1e-3) * apart).all()


@pytest.mark.parametrize("lipschitz", [0, 1, -0.5, 1.5])
def test_a_bound_that_makes_no_contraction_is_refused(lipschitz):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        ConvCell((2, 3, 3), lipschitz)


def test_the_cell_is_the_formula():
    torch.manual_seed(0)
    cell, (z, h0) = ConvCell((3, 4, 5), lipschitz=None), torch.randn(2, 6, 3, 4, 5)
    expected = F.relu(h0 + cell.outer(F.relu(cell.inner(z))))
    assert torch.equal(cell(z, h0), expected)


def test_power_iteration_moves_in_training_only():
    cell = ConvCell((2, 5, 5), 0.9)
    z, h0 = torch.randn(2, 3, 2, 5, 5)
    with torch.no_grad():
        cell.inner.weight.normal_()
    vectors = [cell.inner.singular_vector.clone()]
    for training in (False, True):
        cell.train(training)(z, h0)
        vectors.append(cell.inner.singular_vector.clone())
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[1], vectors[2])


def test_the_singular_vector_is_part_of_the_state():
    """So that a network from a checkpoint is bounded by the same number, to the bit."""
    one, other = (ConvCell((2, 5, 5), 0.9).eval() for _ in range(2))
    with torch.no_grad():
        one.inner.weight.normal_()
    other.load_state_dict(one.state_dict())
    z, h0 = torch.randn(2, 3, 2, 5, 5)
    assert torch.equal(one(z, h0), other(z, h0))


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_an_explicit_refinement_copies(copied):
    explicit, h0 = Explicit((2, 4, 4), partial(ConvCell, lipschitz=None), depth=2), torch.randn(3, 2, 4, 4)
    assert torch.equal(copied(explicit)(h0), explicit(h0))


def test_an_explicit_stack_applies_its_blocks_in_turn_to_its_input():
    explicit, h0 = Explicit((2, 4, 4), partial(ConvCell, lipschitz=None), depth=3), torch.randn(3, 2, 4, 4)
    z = h0
    for block in explicit.blocks:
        z = block(z, h0)
    assert torch.equal(explicit(h0), z)
    assert len({id(p) for p in explicit.parameters()}) == 6


@few
@given(shape=shapes)
def test_one_explicit_block_and_an_equilibrium_have_equal_parameters(shape):
    def sizes(module: torch.nn.Module) -> list[torch.Size]:
        return [p.shape for p in module.parameters()]

    explicit = Explicit(shape, partial(ConvCell, lipschitz=None), depth=1)
    assert sizes(explicit) == sizes(Equilibrium(shape, partial(ConvCell, lipschitz=0.9)))
