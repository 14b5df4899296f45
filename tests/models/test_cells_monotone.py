"""The monotone cell: strongly monotone for any weights, one fixed point, found alike by both splittings."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models import Equilibrium, Explicit, MonotoneCell
from deq_collapse.models.cells.circular import conv_symbol, linear_map, matrices

few = settings(max_examples=25)
shapes = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)), st.tuples(st.integers(1, 8))
)
seeds = st.integers(0, 2**31)


def monotone(shape, gain=1.0, seed=0, **options):
    torch.manual_seed(seed)
    cell = MonotoneCell(shape, **options).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(gain)
    return cell


def dense(cell):
    """``W`` as a matrix on flattened samples, from convolutions on maps padded by themselves."""
    shape = cell.shape
    basis = torch.eye(math.prod(shape), dtype=torch.float64)
    a, b = cell.A.weight, cell.B.weight
    if cell.g is not None:
        a, b = cell.g.abs().sqrt() * a / a.norm(), cell.h * b / b.norm()
    if len(shape) == 1:
        A, B = a, b
    else:
        maps = basis.view(-1, *shape)
        # Three copies side by side and three above each other: their middle has circular surroundings, also
        # where a map is smaller than the kernel.
        tiled = maps.repeat(1, 1, 3, 3)
        rows, columns = slice(shape[1], 2 * shape[1]), slice(shape[2], 2 * shape[2])
        A, B = (F.conv2d(tiled, kernel, padding=1)[:, :, rows, columns].flatten(1).T for kernel in (a, b))
    return (1 - cell.m) * basis - A.T @ A + B - B.T


def framed(z, border):
    """z with zeros on the border of its maps."""
    framed = torch.zeros_like(z)
    inside = slice(border, z.shape[-1] - border)
    if z.dim() == 4:
        framed[:, :, border : z.shape[2] - border, inside] = z[:, :, border : z.shape[2] - border, inside]
    return framed if border else z


def fixed_point(cell, h0, border=0):
    """A damped iteration ``z <- z + t (relu(W z + h0) - z)`` in float64, nothing but the definition."""
    W = dense(cell).detach()
    step = cell.m / torch.linalg.matrix_norm(torch.eye(len(W), dtype=W.dtype) - W, 2).square()
    h, z = h0.flatten(1), torch.zeros_like(h0.flatten(1))
    for _ in range(100_000):
        new = framed(F.relu(z - step * (z - z @ W.T - h)).view_as(h0), border).flatten(1)
        if (new - z).norm() <= 1e-14 * new.norm():
            break
        z = new
    return z.view_as(h0)


@few
@given(shapes, seeds, st.floats(0.01, 5), st.floats(0.1, 30))
def test_the_layer_is_its_formula_and_its_operator_strongly_monotone(shape, seed, m, gain):
    cell = monotone(shape, gain, seed, m=m)
    W = dense(cell).detach()
    z, h0 = torch.randn(2, 5, *shape, dtype=torch.float64)
    expected = F.relu(z.flatten(1) @ W.T + h0.flatten(1)).view_as(z)
    scale = float(torch.linalg.matrix_norm(W, 2)) + 1
    torch.testing.assert_close(cell(z, h0), expected, rtol=0, atol=1e-12 * scale)
    symmetric = torch.eye(len(W), dtype=W.dtype) - (W + W.T) / 2
    assert torch.linalg.eigvalsh(symmetric).min() >= m - 1e-10 * scale


@few
@given(
    shapes,
    seeds,
    st.floats(0.3, 2),
    st.floats(0.1, 3),
    st.sampled_from(["peaceman_rachford", "forward_backward"]),
)
def test_the_equilibrium_is_the_fixed_point_of_the_definition(shape, seed, m, gain, splitting):
    cell = monotone(shape, gain, seed, m=m, splitting=splitting)
    h0 = torch.randn(3, *shape, dtype=torch.float64)
    refinement = Equilibrium(shape, lambda shape: cell, eval_tol=1e-12, eval_max_iter=3000).eval()
    torch.testing.assert_close(
        refinement(h0), fixed_point(cell, h0), rtol=0, atol=1e-8 * float(1 + h0.norm())
    )


@few
@given(
    st.tuples(st.integers(1, 3), st.integers(3, 6), st.integers(3, 6)),
    seeds,
    st.floats(0.3, 2),
    st.sampled_from(["peaceman_rachford", "forward_backward"]),
    st.booleans(),
)
def test_a_border_is_kept_at_zero_and_the_rest_solves_the_equation(shape, seed, m, splitting, weight_norm):
    cell = monotone(shape, 2.0, seed, m=m, splitting=splitting, border=1, weight_norm=weight_norm)
    if weight_norm:
        with torch.no_grad():
            cell.g.fill_(-1.7)  # a length without sign: the operator stays monotone
            cell.h.fill_(2.3)
    W = dense(cell).detach()
    symmetric = torch.eye(len(W), dtype=W.dtype) - (W + W.T) / 2
    assert torch.linalg.eigvalsh(symmetric).min() >= m - 1e-9
    h0 = torch.randn(3, *shape, dtype=torch.float64)
    refinement = Equilibrium(shape, lambda shape: cell, eval_tol=1e-12, eval_max_iter=3000).eval()
    z = refinement(h0)
    assert torch.equal(z, framed(z, 1))
    torch.testing.assert_close(z, fixed_point(cell, h0, border=1), rtol=0, atol=1e-8 * float(1 + h0.norm()))
    torch.testing.assert_close(cell(z, h0), z, rtol=0, atol=1e-8 * float(1 + h0.norm()))


def test_with_a_border_and_weight_norm_gradients_are_those_of_the_equation():
    torch.manual_seed(0)
    make = partial(MonotoneCell, m=1.0, border=1, weight_norm=True)
    refinement = Equilibrium((2, 4, 4), make, tol=1e-13, backward_tol=1e-13, max_iter=2000).double()
    h0 = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(refinement, h0, eps=1e-6, atol=1e-6, nondet_tol=1e-9)
    cotangent = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    for parameter in (refinement.cell.g, refinement.cell.h):
        (exact,) = torch.autograd.grad((refinement(h0) * cotangent).sum(), parameter)
        values = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                parameter.add_(step)
                values.append(float((refinement(h0) * cotangent).sum()))
        with torch.no_grad():
            parameter.add_(1e-5)
        assert float(exact) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("border", [-1, 2])
def test_a_border_that_leaves_nothing_is_refused(border):
    with pytest.raises(UserError, match=rf"^border is {border}, .*\.$"):
        MonotoneCell((2, 4, 3), border=border)
    with pytest.raises(UserError, match=r"^border is 1, "):
        MonotoneCell((8,), border=1)


@pytest.mark.parametrize("shape", [(4, 3, 3), (24,)])
def test_it_is_solved_where_iterating_the_layer_diverges(shape):
    cell = monotone(shape, gain=20.0)
    h0 = torch.randn(3, *shape, dtype=torch.float64)
    z = h0
    for _ in range(50):
        z = cell(z, h0)
    assert z.norm() > 1e6 * h0.norm()
    refinement = Equilibrium(shape, lambda shape: cell, eval_tol=1e-10, eval_max_iter=2000).eval()
    solved = refinement(h0)
    assert not refinement.forward_solve.missed.any()
    torch.testing.assert_close(cell(solved, h0), solved, rtol=0, atol=1e-5)
    assert (solved.flatten(1).norm(dim=1) <= h0.flatten(1).norm(dim=1) / cell.m).all()


@few
@given(shapes, seeds)
def test_both_splittings_have_the_same_gradients(shape, seed):
    h0 = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    grads = []
    for splitting in ("peaceman_rachford", "forward_backward"):
        make = partial(MonotoneCell, m=1.0, splitting=splitting)
        torch.manual_seed(seed)
        options = {"tol": 1e-13, "backward_tol": 1e-13, "max_iter": 2000}
        refinement = Equilibrium(shape, make, **options).double()
        z = refinement(h0)
        cotangent = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view_as(z)
        grads.append(torch.autograd.grad((z * cotangent).sum(), [h0, *refinement.parameters()]))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8 * float(1 + b.abs().max()))


@few
@given(shapes, seeds, st.floats(0.05, 2), st.floats(0.1, 30))
def test_the_factors_are_the_theorys(shape, seed, m, gain):
    """At most ``sqrt(1 - (m / L)^2)``, and ``sqrt(1 - 4 a m / (1 + a L)^2)`` for Peaceman-Rachford."""
    for splitting in ("forward_backward", "peaceman_rachford"):
        cell = monotone(shape, gain, seed, m=m, splitting=splitting)
        M = torch.eye(math.prod(shape), dtype=torch.float64) - dense(cell).detach()
        L = float(torch.linalg.matrix_norm(M, 2))
        if splitting == "forward_backward":
            promised = math.sqrt(max(0, 1 - (m / L) ** 2))
        else:
            # The least this is for an alpha between 1 / L and 1 / m, where every root mean square lies.
            promised = math.sqrt(1 - min(4 * a * m / (1 + a * L) ** 2 for a in (1 / L, 1 / m)))
        assert cell.lipschitz_bound() <= promised * (1 + 1e-9) + 1e-9


def test_more_strongly_monotone_is_solved_in_fewer_evaluations():
    h0, counts = torch.randn(8, 6, 4, 4), []
    for m in (0.1, 0.5, 2.0):
        torch.manual_seed(0)
        refinement = Equilibrium((6, 4, 4), partial(MonotoneCell, m=m)).eval()
        refinement(h0)
        counts.append(refinement.forward_solve.evaluations)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


def test_watching_the_solver_shows_z_and_not_the_splittings_state():
    refinement, seen = Equilibrium((3, 2, 2), MonotoneCell).eval(), []
    refinement.iterate.register_forward_hook(lambda module, args, out: seen.append(out))
    z = refinement(torch.randn(4, 3, 2, 2))
    assert all((state >= 0).all() for state in seen)
    assert torch.equal(seen[-1], z)


def test_a_monotone_layer_is_an_explicit_block():
    h0 = torch.randn(2, 3, 4, 4)
    explicit = Explicit((3, 4, 4), MonotoneCell, depth=2)
    first, second = explicit.blocks
    assert torch.equal(explicit(h0), second(first(h0, h0), h0))


@few
@given(shapes, st.integers(1, 4), seeds)
def test_matrices_by_frequency_add_multiply_transpose_and_invert_as_the_maps_do(shape, out, seed):
    torch.manual_seed(seed)
    width, rest = shape[0], shape[1:]
    kernel = (3, 3) if rest else ()
    A, B = (torch.randn(out, width, *kernel, dtype=torch.float64) for _ in range(2))
    a, b = matrices(A, shape), matrices(B, shape)
    x = torch.randn(5, *shape, dtype=torch.float64)
    y = torch.randn(5, out, *rest, dtype=torch.float64)
    forth = linear_map(a, shape)(x)
    torch.testing.assert_close(linear_map(a.mT, (out, *rest))(y).mul(x).sum(), y.mul(forth).sum())
    torch.testing.assert_close(linear_map(a + b, shape)(x), forth + linear_map(b, shape)(x))
    gram = a.mT @ a + torch.eye(a.shape[2], dtype=a.dtype)
    torch.testing.assert_close(linear_map(gram, shape)(x), linear_map(a.mT, (out, *rest))(forth) + x)
    torch.testing.assert_close(linear_map(torch.linalg.inv(gram), shape)(linear_map(gram, shape)(x)), x)


@few
@given(st.integers(1, 7), st.integers(1, 7), seeds)
def test_transforms_of_small_and_of_large_maps_are_the_same_map(height, width, seed):
    torch.manual_seed(seed)
    of = matrices(torch.randn(3, 2, 3, 3, dtype=torch.float64), (2, height, width))
    x = torch.randn(4, 2, height, width, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        small = linear_map(of, (2, height, width))(x)
        patch.setattr("deq_collapse.models.cells.circular.SMALL", 0)
        torch.testing.assert_close(linear_map(of, (2, height, width))(x), small)


@few
@given(st.integers(3, 6), st.integers(3, 6), seeds)
def test_the_symbol_is_the_fourier_transform_of_the_circular_convolution(height, width, seed):
    torch.manual_seed(seed)
    weight, x = torch.randn(4, 2, 3, 3, dtype=torch.float64), torch.randn(1, 2, height, width).double()
    y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight)
    by_frequency = conv_symbol(weight, height, width) @ torch.fft.rfft2(x)[0].flatten(1).T[:, :, None]
    torch.testing.assert_close(by_frequency[..., 0].T, torch.fft.rfft2(y)[0].flatten(1))
