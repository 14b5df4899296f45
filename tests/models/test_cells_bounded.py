"""Linear maps of bounded norm, against the dense matrix of the same map."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from deq_collapse.models import ConvCell
from deq_collapse.models.cells.bounded import BoundedConv2d, BoundedLinear, bounded_weight
from deq_collapse.models.cells.norms import circular_norm

few = settings(max_examples=25)
maps = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
shapes = st.one_of(maps, st.tuples(st.integers(1, 20)))
seeds = st.integers(0, 2**31)


def largest(weight: Tensor, shape: tuple[int, ...]) -> float:
    """The largest singular value of the dense matrix of a convolution with zero padding, or of a matrix."""
    weight = weight.detach().double()
    if len(shape) == 3:
        basis = torch.eye(math.prod(shape), dtype=weight.dtype).view(-1, *shape)
        weight = F.conv2d(basis, weight, padding=1).flatten(1)
    return float(torch.linalg.matrix_norm(weight, 2))


def bounded(shape, bound=0.9, seed=0, gain=10.0, out=None):
    torch.manual_seed(seed)
    made = BoundedConv2d(shape, bound, out) if len(shape) == 3 else BoundedLinear(shape, bound, out)
    with torch.no_grad():
        made.weight.mul_(gain)
    return made.double().eval()


@few
@given(shapes, st.floats(0.1, 2), seeds, st.floats(0.1, 100), st.integers(1, 4))
def test_in_eval_mode_the_norm_never_exceeds_its_bound_and_comes_close(shape, bound, seed, gain, out):
    of = bounded(shape, bound, seed, gain, out)
    true = largest(of.weight, shape)
    assert largest(bounded_weight(of), shape) <= bound
    assert largest(bounded_weight(of), shape) >= min(true, bound) * (1 - 2e-3)
    assert of.operator_norm().item() == pytest.approx(true, rel=1e-6)


@few
@given(shapes, seeds, st.floats(0.1, 100), st.booleans())
def test_the_certificate_is_the_norm_to_rounding_and_not_below_it(shape, seed, gain, training):
    of = bounded(shape, 0.9, seed, gain).train(training)
    true = largest(bounded_weight(of.eval()), shape)
    assert true * (1 - 1e-12) <= of.norm_bound() <= true * (1 + 1e-9)


@few
@given(maps, seeds, st.integers(1, 4))
def test_the_certificate_of_large_maps_is_never_below_the_norm(shape, seed, out):
    torch.manual_seed(seed)
    weight = torch.randn(out, shape[0], 3, 3, dtype=torch.float64)
    assert circular_norm(weight, *shape[1:]) >= largest(weight, shape) * (1 - 1e-12)


@pytest.mark.parametrize(("side", "above"), [(8, 0.1), (16, 0.03)])
@pytest.mark.parametrize("smooth", [0.0, 1.0], ids=["random", "smooth"])
def test_the_certificate_of_large_maps_is_close(side, above, smooth):
    torch.manual_seed(0)
    weight = torch.randn(3, 3, 3, 3, dtype=torch.float64)
    weight = weight + smooth * 3 * weight.mean((2, 3), keepdim=True)
    assert circular_norm(weight, side, side) <= largest(weight, (3, side, side)) * (1 + above)


def test_large_maps_are_certified_without_a_dense_matrix():
    """17 x 8 x 8 is more than 1024: the bound holds, though what is proved is a little above it."""
    shape = (17, 8, 8)
    of = bounded(shape, 0.9)
    assert 0.9 * (1 - 2e-3) <= largest(bounded_weight(of), shape) <= 0.9
    assert 0.9 < of.norm_bound() < 0.9 * 1.1


@pytest.mark.parametrize("size", [200, 1100], ids=["dense", "iterated"])
def test_many_equal_singular_values_do_not_hide_the_largest(size):
    """Training against the bound makes such spectra: all but ten values between 0.98 and 1 here."""
    of = BoundedLinear((size,), 0.9).eval()
    values = torch.cat([torch.linspace(0.98, 1, size - 10), torch.zeros(10)])
    with torch.no_grad():
        of.weight.copy_(values.diag())
    assert 0.9 * (1 - 2e-3) <= float(bounded_weight(of).detach().max()) <= 0.9


def test_a_weight_within_the_bound_is_left_as_it_is():
    for shape in ((3, 4, 5), (7,)):
        of = bounded(shape, 100.0, gain=1.0)
        assert torch.equal(bounded_weight(of), of.weight)


def test_the_norm_bounded_is_the_operators_not_the_reshaped_kernels():
    """Normalising the kernel's matrix to 0.9 is what torch's spectral_norm does: it bounds nothing here."""
    conv = bounded((3, 6, 6), 0.9, gain=100.0)
    kernel = conv.weight.flatten(1)
    assert largest(0.9 * conv.weight / torch.linalg.matrix_norm(kernel, 2), (3, 6, 6)) > 1.1
    assert largest(bounded_weight(conv), (3, 6, 6)) <= 0.9


def test_training_stays_within_a_few_per_cent_of_the_bound():
    """SGD pushes against the bound with steps that move the weights by a third at first."""
    shape = (4, 5, 5)
    torch.manual_seed(0)
    cell, h0 = ConvCell(shape, 0.9).train(), torch.randn(8, *shape)
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.5, momentum=0.9)
    worst = 0.0
    for _ in range(100):
        optimizer.zero_grad()
        (-cell(torch.randn(8, *shape), h0).square().mean()).backward()
        for conv in (cell.inner, cell.outer):
            scaled = conv.weight * conv.bound / conv.operator_norm().clamp_min(conv.bound)
            worst = max(worst, largest(scaled, shape) / conv.bound)
        optimizer.step()
    assert largest(cell.inner.weight, shape) > 1.5 * cell.inner.bound
    assert worst <= 1.03


def test_training_and_measuring_agree_once_the_iteration_stands_still():
    torch.manual_seed(0)
    cell = ConvCell((3, 5, 5), 0.9).double()
    z, h0 = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64)
    for conv in (cell.inner, cell.outer):
        with torch.no_grad():
            conv.weight.normal_()
        conv.power_iteration(1000, tol=0)
    torch.testing.assert_close(cell.train()(z, h0), cell.eval()(z, h0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_a_direction_that_all_followed_vectors_avoid_is_found_once_it_grows(training):
    of = BoundedLinear((40,), 0.9).train(training)
    with torch.no_grad():
        of.weight.copy_(torch.diag(torch.cat([torch.ones(20), torch.zeros(20)])))
        for _ in range(200):
            of.scale()  # every vector now lies in the first 20 directions, to the bit
        of.weight[30, 30] = 3.0
        for _ in range(3):
            scaled = bounded_weight(of)
    assert largest(scaled, (40,)) <= 0.9 * (1 + 1e-3)


def test_autocast_around_it_neither_loosens_the_bound_nor_reaches_what_cuda_lacks(monkeypatch):
    """An explicit network computes its cell under autocast, and CUDA has no `eigh` of bfloat16."""
    eigh = torch.linalg.eigh

    def in_full(matrix, *args, **options):
        assert matrix.dtype != torch.bfloat16
        with torch.autocast("cpu", enabled=False):  # which would convert it here, and does not on CUDA
            return eigh(matrix, *args, **options)

    monkeypatch.setattr(torch.linalg, "eigh", in_full)
    torch.manual_seed(0)
    plain, cast = (copy.deepcopy(cell) for cell in [ConvCell((3, 6, 6), 0.9)] * 2)
    with torch.no_grad():
        for weight in (*plain.parameters(), *cast.parameters()):
            weight.copy_(torch.linspace(-1, 1, weight.numel()).sin().view_as(weight))
    expected = [bounded_weight(plain.train().inner), bounded_weight(plain.eval().outer)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [bounded_weight(cast.train().inner), bounded_weight(cast.eval().outer)]
        certificate = cast.lipschitz_bound()
    assert all(map(torch.equal, found, expected))
    assert certificate == plain.lipschitz_bound()


def test_weights_of_zero_have_gradients_and_are_bounded_once_they_grow():
    """A last convolution that starts at zero is a common choice."""
    shape = (2, 4, 4)
    cell = ConvCell(shape, 0.9)
    torch.nn.init.zeros_(cell.outer.weight)
    cell.train()(torch.randn(3, *shape), torch.randn(3, *shape)).sum().backward()
    assert cell.outer.weight.grad.isfinite().all()
    assert cell.outer.weight.grad.any()
    assert cell.eval().lipschitz_bound() == 0
    with torch.no_grad():
        cell.outer.weight.normal_().mul_(100)
    assert largest(bounded_weight(cell.outer), shape) <= cell.outer.bound
    for _ in range(3):
        scaled = bounded_weight(cell.outer.train())
    assert largest(scaled, shape) <= cell.outer.bound * (1 + 1e-2)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5,)])
def test_the_gradient_passes_through_the_scaling(shape):
    """It is that of ``W aim / sigma_max(W)``, with torch's own sigma_max of the dense matrix."""
    of = bounded(shape)

    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.of = of

        def forward(self):
            return bounded_weight(self.of)

    def function(weight):
        return torch.func.functional_call(Scaled(), {"of.weight": weight})

    assert torch.autograd.gradcheck(function, of.weight.detach().clone().requires_grad_())


def test_two_training_passes_may_share_one_backward_pass():
    cell, h0 = ConvCell((2, 4, 4), 0.9).train(), torch.randn(2, 3, 2, 4, 4)
    with torch.no_grad():
        cell.inner.weight.mul_(10)
    (cell(h0[0], h0[1]).sum() + cell(h0[1], h0[0]).sum()).backward()
    assert cell.inner.weight.grad.isfinite().all()


def test_what_was_measured_in_inference_mode_still_has_a_gradient_in_eval_mode():
    """Lightning measures in inference mode, whose tensors autograd refuses."""
    cell, h0 = ConvCell((2, 4, 4), 0.9).eval(), torch.randn(3, 2, 4, 4)
    with torch.inference_mode():
        cell(h0, h0)
    cell(h0, h0).sum().backward()
    assert cell.inner.weight.grad.any()


def test_measuring_changes_no_state_and_training_moves_it():
    cell = ConvCell((2, 5, 5), 0.9)
    z, h0 = torch.randn(2, 3, 2, 5, 5)
    with torch.no_grad():
        cell.inner.weight.normal_()
    before = copy.deepcopy(cell.state_dict())
    cell.eval()(z, h0)
    cell.lipschitz_bound()
    assert all(torch.equal(before[name], value) for name, value in cell.state_dict().items())
    cell.train()(z, h0)
    assert not torch.equal(before["inner.singular_vectors"], cell.inner.singular_vectors)


def test_the_singular_vectors_are_part_of_the_state():
    """So that a network from a checkpoint goes on to the bit."""
    one, other = (ConvCell((2, 5, 5), 0.9) for _ in range(2))
    with torch.no_grad():
        one.inner.weight.normal_()
    other.eval()
    z, h0 = torch.randn(2, 3, 2, 5, 5)
    other(z, h0)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.eval()(z, h0), other(z, h0))
    assert torch.equal(one.train()(z, h0), other.train()(z, h0))


@pytest.mark.parametrize(
    "moved",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: copy.deepcopy(m).double()],
    ids=["deepcopy", "pickle", "float64"],
)
def test_a_copy_is_bounded_alike_and_follows_its_own_weights(moved):
    cell, (z, h0) = ConvCell((2, 5, 5), 0.9).eval(), torch.randn(2, 3, 2, 5, 5)
    with torch.no_grad():
        cell.inner.weight.normal_()
    before = cell(z, h0)
    twin = moved(cell)
    dtype = twin.inner.weight.dtype
    torch.testing.assert_close(twin(z.to(dtype), h0.to(dtype)).float(), before, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        twin.inner.weight.mul_(3)
    torch.testing.assert_close(twin(z.to(dtype), h0.to(dtype)).float(), before, rtol=1e-4, atol=1e-5)
    assert torch.equal(cell(z, h0), before)
