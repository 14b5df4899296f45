"""What every cell promises: its Lipschitz bound, one fixed point, and the gradient of that."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models import (
    CircularEncoder,
    ConvCell,
    Equilibrium,
    Explicit,
    LinearCell,
    LinearEncoder,
    MLPCell,
    MonotoneCell,
    MultiscaleCell,
    OptEqCell,
    PatchAverage,
    VectorEncoder,
)
from deq_collapse.models.cells.bounded import MARGIN

few = settings(max_examples=25)
CELLS = {
    "convolution": (ConvCell, (2, 3, 4)),
    "narrow convolution": (partial(ConvCell, inner_width=1), (3, 2, 2)),
    "relu matrices": (MLPCell, (7,)),
    "tanh matrices": (partial(MLPCell, activation="tanh", inner_width=3), (7,)),
    "linear": (LinearCell, (7,)),
    "monotone on maps": (MonotoneCell, (2, 3, 4)),
    "monotone on vectors": (MonotoneCell, (7,)),
    "forward-backward": (partial(MonotoneCell, m=2.0, splitting="forward_backward"), (2, 2, 3)),
    "opteq on maps": (OptEqCell, (2, 3, 4)),
    "opteq on vectors, damped": (partial(OptEqCell, mu=0.5, inner_width=5), (7,)),
    "multiscale": (partial(MultiscaleCell, scales=3), (2, 4, 8)),
}
FREE = {
    "convolution": (partial(ConvCell, lipschitz=None), (2, 3, 4)),
    "matrices": (partial(MLPCell, lipschitz=None), (7,)),
    "linear": (partial(LinearCell, lipschitz=None), (7,)),
}
each = pytest.mark.parametrize(("make", "shape"), CELLS.values(), ids=CELLS)
free = pytest.mark.parametrize(("make", "shape"), FREE.values(), ids=FREE)


def random_cell(make, shape, gain=1.0, seed=0):
    """In float64, with weights that many times as large as those it starts with."""
    torch.manual_seed(seed)
    cell = make(shape).double().eval()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(gain)
    return cell


def states(cell, shape, n=4, scale=1.0) -> tuple[Tensor, Tensor, Tensor]:
    h0 = torch.randn(n, *shape, dtype=torch.float64)
    a, b = (scale * torch.randn_like(cell.start(h0)) for _ in range(2))
    return a, b, h0


def length(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


@few
@given(
    st.sampled_from([*CELLS.values()]), st.integers(0, 2**31), st.floats(0.1, 30), st.sampled_from([0.1, 30])
)
def test_the_lipschitz_bound_holds_on_any_two_states(cell, seed, gain, scale):
    cell, shape = random_cell(*cell, gain, seed), cell[1]
    a, b, h0 = states(cell, shape, 16, scale)
    f, bound = cell.at(h0), cell.lipschitz_bound()
    assert bound < 1
    assert (length(f(a) - f(b)) <= bound * length(a - b) * (1 + 1e-12)).all()


@few
@given(st.sampled_from([*CELLS.values()]), st.integers(0, 2**31))
def test_the_lipschitz_bound_holds_on_neighbours_where_the_map_is_steepest(cell, seed):
    """The norm of the Jacobian, which random pairs hardly ever come near."""
    cell, shape = random_cell(*cell, 10.0, seed), cell[1]
    a, _, h0 = states(cell, shape, 1, 3.0)
    jacobian = torch.autograd.functional.jacobian(lambda z: cell.at(h0)(z).flatten(), a).flatten(1)
    assert torch.linalg.matrix_norm(jacobian, 2) <= cell.lipschitz_bound() * (1 + 1e-12)


@each
def test_plain_iteration_reaches_one_fixed_point_from_anywhere_as_fast_as_promised(make, shape):
    cell = random_cell(make, shape, 2.0)
    a, b, h0 = states(cell, shape)
    f, bound = cell.at(h0), cell.lipschitz_bound()
    apart = length(a - b)
    steps = math.ceil(math.log(1e-9) / math.log(bound))
    for _ in range(steps):
        a, b = f(a), f(b)
    assert (length(a - b) <= 1e-9 * apart).all()
    assert (length(f(a) - a) <= 1e-8 * (1 + length(a))).all()


@each
@pytest.mark.parametrize("solver", ["anderson_relative", "fixed_point_relative"])
def test_gradients_at_the_fixed_point_are_those_of_a_long_unroll(make, shape, solver):
    torch.manual_seed(0)
    options = {"tol": 1e-13, "backward_tol": 1e-13, "max_iter": 3000}
    refinement = Equilibrium(shape, make, solver, **options).double()
    cell = refinement.cell.eval()
    h0 = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    inputs = [h0, *cell.parameters()]
    out = refinement(h0)
    cotangent = torch.randn_like(out)
    ours = torch.autograd.grad((out * cotangent).sum(), inputs)

    f, z = cell.at(h0), cell.start(h0)
    for _ in range(math.ceil(math.log(1e-12) / math.log(cell.lipschitz_bound()))):
        z = f(z)
    unrolled = cell.output(z)
    torch.testing.assert_close(out, unrolled, rtol=0, atol=1e-9)
    for a, b in zip(ours, torch.autograd.grad((unrolled * cotangent).sum(), inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8 * float(b.abs().max()))


@each
def test_derivatives_of_one_evaluation_pass_gradcheck(make, shape):
    """In z, in H0 and in the weights, the scaling to the bound included."""
    cell = random_cell(make, shape, 3.0)
    z, _, h0 = states(cell, shape, 2)
    names, values = zip(*cell.named_parameters(), strict=True)

    def function(z, h0, *weights):
        return torch.func.functional_call(cell, dict(zip(names, weights, strict=True)), (z, h0))

    inputs = [value.detach().clone().requires_grad_() for value in (z, h0, *values)]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@each
def test_a_sample_does_not_depend_on_its_batch_mates(make, shape):
    cell = random_cell(make, shape)
    z, _, h0 = states(cell, shape)
    alone = torch.cat([cell.at(h)(s) for s, h in zip(z.split(1), h0.split(1), strict=True)])
    torch.testing.assert_close(cell.at(h0)(z), alone)


@each
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_a_copy_computes_the_same_and_has_the_same_bound(make, shape, copied):
    cell = random_cell(make, shape, 3.0)
    z, _, h0 = states(cell, shape)
    twin = copied(cell)
    assert torch.equal(twin.at(h0)(z), cell.at(h0)(z))
    assert twin.lipschitz_bound() == cell.lipschitz_bound()


@each
def test_weights_reach_another_cell_by_state_dict(make, shape):
    one, other = random_cell(make, shape, 3.0), random_cell(make, shape, seed=1)
    z, _, h0 = states(one, shape)
    assert not torch.equal(one.at(h0)(z), other.at(h0)(z))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.at(h0)(z), other.at(h0)(z))


@each
def test_float32_and_float64_agree_to_rounding(make, shape):
    cell = random_cell(make, shape, 3.0)
    z, _, h0 = states(cell, shape)
    single = copy.deepcopy(cell).float()
    torch.testing.assert_close(
        single.at(h0.float())(z.float()).double(), cell.at(h0)(z), rtol=1e-4, atol=1e-4
    )
    assert single.lipschitz_bound() == pytest.approx(cell.lipschitz_bound(), rel=1e-5)


@each
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_broke_are_seen_in_the_values_and_raise_nothing(make, shape, training, bad):
    """A run that diverged goes on to its end, with losses that are not numbers."""
    cell = random_cell(make, shape).train(training)
    z, _, h0 = states(cell, shape)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.fill_(bad)
    assert not cell.at(h0)(z).isfinite().all()
    assert not math.isfinite(cell.lipschitz_bound())


@free
def test_free_weights_are_an_explicit_block_of_as_many_parameters_and_promise_nothing(make, shape):
    block, bounded = make(shape), make.func(shape)
    assert block.lipschitz_bound() is None
    assert [p.shape for p in block.parameters()] == [p.shape for p in bounded.parameters()]
    assert not dict(block.named_buffers())
    h0 = torch.randn(2, *shape)
    assert Explicit(shape, make, depth=2)(h0).shape == h0.shape


def scaled(linear, shape, lipschitz):
    """A map with its norm, by its dense matrix, brought down to the square root of a bound on two of them."""
    size = math.prod(shape)
    matrix = linear(torch.eye(size).view(size, *shape)).detach().reshape(size, size)
    aim = lipschitz**0.5 * (1 - MARGIN) if lipschitz else math.inf
    factor = min(1.0, aim / float(torch.linalg.matrix_norm(matrix, 2)))
    return lambda x: factor * linear(x)


@pytest.mark.parametrize("lipschitz", [0.1, 0.9, None])
def test_the_two_map_cells_are_their_formula(lipschitz):
    torch.manual_seed(0)
    conv, mlp = ConvCell((3, 4, 5), lipschitz).eval(), MLPCell((6,), lipschitz, activation="tanh").eval()
    z, h0 = torch.randn(2, 5, 3, 4, 5)
    a, b = (scaled(linear, (3, 4, 5), lipschitz) for linear in (conv.inner, conv.outer))
    torch.testing.assert_close(conv(z, h0), F.relu(h0 + b(F.relu(a(z)))))
    z, h0 = torch.randn(2, 5, 6)
    a, b = (scaled(linear, (6,), lipschitz) for linear in (mlp.inner, mlp.outer))
    torch.testing.assert_close(mlp(z, h0), torch.tanh(h0 + b(torch.tanh(a(z)))))


def test_the_linear_cells_fixed_point_and_its_gradients_are_the_closed_form():
    torch.manual_seed(0)
    tight = {"tol": 1e-13, "backward_tol": 1e-13, "max_iter": 500}
    refinement = Equilibrium((6,), LinearCell, **tight).double()
    cell, h0 = refinement.cell.eval(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        cell.A.weight.mul_(10)
    inputs, cotangent = [h0, *cell.parameters()], torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(refinement(h0), cell.closed_form(h0), rtol=0, atol=1e-10)
    ours = torch.autograd.grad((refinement(h0) * cotangent).sum(), inputs)
    closed = torch.autograd.grad((cell.closed_form(h0) * cotangent).sum(), inputs)
    for a, b in zip(ours, closed, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * float(b.abs().max()))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        *[
            (partial(make, shape, lipschitz=lipschitz), "above 0 and below 1")
            for make, shape in [
                (ConvCell, (2, 3, 3)),
                (MLPCell, (4,)),
                (LinearCell, (4,)),
                (MultiscaleCell, (1, 2, 2)),
            ]
            for lipschitz in (0, 1, -0.5, math.nan)
        ],
        (partial(ConvCell, (2, 3, 3), inner_width=0), "at least 1 channel"),
        (partial(MLPCell, (4,), inner_width=0), "at least 1 channel"),
        (partial(MLPCell, (4,), activation="gelu"), "activation is gelu, but it is relu or tanh"),
        (partial(ConvCell, (4,)), r"ConvCell works on maps \(C, H, W\), but H0 has the shape \(4,\)"),
        (partial(MultiscaleCell, (4,)), "MultiscaleCell works on maps"),
        (partial(MLPCell, (2, 3, 3)), r"MLPCell works on vectors \(d\), but H0 has the shape \(2, 3, 3\)"),
        (partial(LinearCell, (2, 3, 3)), "LinearCell works on vectors"),
        (partial(MonotoneCell, (2, 3)), r"maps \(C, H, W\) or vectors \(d\), but H0 has the shape \(2, 3\)"),
        (partial(MonotoneCell, (2,), m=0), "m is 0, but"),
        (partial(MonotoneCell, (2,), m=math.nan), "m is nan, but"),
        (partial(MonotoneCell, (2,), m=math.inf), "m is inf, but"),
        (partial(MonotoneCell, (2,), splitting="douglas"), "the splitting is douglas, but"),
        (partial(MultiscaleCell, (1, 2, 3), scales=2), "scales is 2, .* the 2x3 map of H0"),
        (partial(MultiscaleCell, (1, 2, 2), scales=0), "scales is 0"),
        (partial(OptEqCell, (2, 3)), r"maps \(C, H, W\) or vectors \(d\), but H0 has the shape \(2, 3\)"),
        (partial(OptEqCell, (2,), lipschitz=1), "above 0 and below 1"),
        (partial(OptEqCell, (2,), mu=0), "mu is 0"),
        (partial(OptEqCell, (2,), mu=math.nan), "mu is nan"),
        (partial(OptEqCell, (2,), inner_width=0), "inner_width is 0"),
        (partial(VectorEncoder, (1, 2, 2), width=0), "width is 0"),
        (partial(LinearEncoder, (1, 2, 2), width=0), "width is 0"),
        (partial(CircularEncoder, (1, 2, 2), width=0), "width is 0"),
        (partial(CircularEncoder, (1, 2, 2), border=-1), "border -1"),
        (partial(PatchAverage, 0), "side is 0"),
        (partial(PatchAverage(3), torch.zeros(1, 2, 2, 5)), r"at least 3x3 pixels, but got \(N, 2, 2, 5\)"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_in_one_sentence(wrong, said):
    with pytest.raises(UserError, match=said):
        wrong()


def test_the_vector_encoder_maps_images_to_vectors_that_relu_leaves():
    h0 = VectorEncoder((2, 3, 4), width=5)(torch.randn(6, 2, 3, 4))
    assert h0.shape == (6, 5)
    assert (h0 >= 0).all()


def test_the_fully_connected_mondeq_has_the_size_and_the_fixed_point_of_its_publication():
    encoder, cell = LinearEncoder((1, 28, 28), width=87), MonotoneCell((87,), m=1.0)
    size = sum(p.numel() for part in (encoder, cell, nn.Linear(87, 10)) for p in part.parameters())
    assert size == 784 * 87 + 87 + 2 * 87**2 + 87 * 10 + 10  # 84 thousand
    h0 = encoder(torch.randn(4, 1, 28, 28)).detach()
    refinement = Equilibrium((87,), lambda shape: cell, solver="fixed_point_relative", eval_tol=1e-6).eval()
    with torch.no_grad():
        z = refinement(h0)
        A, B = cell.A.weight, cell.B.weight
        W = -A.T @ A + B - B.T
        torch.testing.assert_close(z, torch.relu(z @ W.T + h0), rtol=1e-4, atol=1e-5)


def test_the_convolutional_mondeq_has_the_size_and_the_equation_of_its_publication():
    """172 thousand parameters for CIFAR-10; the image gets a border of zeros, on which z stays 0."""
    encoder, readout = CircularEncoder((3, 32, 32), width=81), PatchAverage(4)
    cell = MonotoneCell((81, 34, 34), m=1.0, border=1, weight_norm=True)
    parts = (encoder, cell, nn.Linear(81 * 8 * 8, 10))
    size = sum(p.numel() for part in parts for p in part.parameters())
    assert size == 81 * 28 + 2 * 9 * 81**2 + 2 + 5184 * 10 + 10 == 172_218
    x = torch.randn(1, 3, 32, 32)
    options = {"solver": "fixed_point_relative", "eval_tol": 1e-6}
    with torch.no_grad():
        h0 = encoder(x)
        z = Equilibrium((81, 34, 34), lambda shape: cell, **options).eval()(h0)
        A, B = (of.weight / of.weight.norm() for of in (cell.A, cell.B))

        def circular(z, kernel, transposed=False):
            # The transpose of a convolution has the kernel turned by 180 degrees and its channels swapped.
            kernel = kernel.flip(2, 3).transpose(0, 1) if transposed else kernel
            return F.conv2d(F.pad(z, (1, 1, 1, 1), mode="circular"), kernel)

        image = F.pad(x, (1, 1, 1, 1))
        injected = circular(image, encoder[1].weight) + encoder[1].bias[:, None, None]
        layer = injected - circular(circular(z, A), A, True) + circular(z, B) - circular(z, B, True)
        expected = F.pad(torch.relu(layer)[:, :, 1:-1, 1:-1], (1, 1, 1, 1))
        torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)
        assert readout(z).shape == (1, 5184)
        torch.testing.assert_close(readout(z)[0, 1], z[0, 0, :4, 4:8].mean())
