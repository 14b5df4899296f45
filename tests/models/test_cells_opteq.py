"""OptEq's cell: its equilibrium is the minimiser of a strongly convex function."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deq_collapse.models import Equilibrium, Explicit, OptEqCell

few = settings(max_examples=20)
shapes = st.sampled_from([(7,), (2, 3, 4)])
seeds = st.integers(0, 2**31)
TIGHT = {"eval_tol": 1e-13, "eval_max_iter": 2000}


def solved(shape, seed, lipschitz=0.9, mu=1.0):
    torch.manual_seed(seed)
    made = Equilibrium(shape, partial(OptEqCell, lipschitz=lipschitz, mu=mu), **TIGHT).double().eval()
    with torch.no_grad():
        made.cell.W.weight.mul_(10)
    return made, torch.randn(5, *shape, dtype=torch.float64)


@few
@given(shape=shapes, seed=seeds, lipschitz=st.floats(0.1, 0.99), far=st.floats(1e-3, 10))
def test_the_equilibrium_minimises_the_objective_which_grows_as_strong_convexity_says(
    shape, seed, lipschitz, far
):
    refinement, h0 = solved(shape, seed, lipschitz)
    cell, z = refinement.cell, refinement(h0)
    step = far * torch.randn_like(z)
    growth = cell.objective(z + step, h0) - cell.objective(z, h0)
    least = (1 - lipschitz) / 2 * step.flatten(1).square().sum(1)
    assert (growth >= least * (1 - 1e-6) - 1e-10).all()


@few
@given(shape=shapes, seed=seeds, weight=st.floats(0, 1))
def test_the_objective_is_convex_between_any_two_states(shape, seed, weight):
    refinement, h0 = solved(shape, seed)
    a, b = (3 * torch.randn_like(h0) for _ in range(2))
    between = refinement.cell.objective(torch.lerp(a, b, weight), h0)
    chord = torch.lerp(refinement.cell.objective(a, h0), refinement.cell.objective(b, h0), weight)
    assert (between <= chord + 1e-9).all()


@few
@given(shape=shapes, seed=seeds)
def test_the_gradient_of_the_objective_is_the_residual(shape, seed):
    refinement, h0 = solved(shape, seed)
    z = torch.randn_like(h0).requires_grad_()
    (gradient,) = torch.autograd.grad(refinement.cell.objective(z, h0).sum(), z)
    torch.testing.assert_close(gradient, z - refinement.cell(z, h0))


@few
@given(shape=shapes, seed=seeds)
def test_it_is_a_proximal_operator(shape, seed):
    """Firmly non-expansive and the gradient of a convex function: its Jacobian has eigenvalues in [0, 1)."""
    refinement, h0 = solved(shape, seed)
    z, f = torch.randn_like(h0[:1]), refinement.cell.at(h0[:1])
    jacobian = torch.autograd.functional.jacobian(lambda z: f(z).flatten(), z).flatten(1)
    torch.testing.assert_close(jacobian, jacobian.T)
    values = torch.linalg.eigvalsh(jacobian)
    assert values.min() >= -1e-12
    assert values.max() <= 0.9


@few
@given(shape=shapes, seed=seeds, mu=st.floats(0.2, 1))
def test_damping_leaves_the_equilibrium_where_it_is(shape, seed, mu):
    plain, h0 = solved(shape, seed)
    damped, _ = solved(shape, seed, mu=mu)
    torch.testing.assert_close(damped(h0), plain(h0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(16,), (16, 2, 2)])
def test_matched_blocks_have_exactly_the_parameters_of_one(shape):
    counts = [
        sum(p.numel() for p in Explicit(shape, OptEqCell, **options).parameters())
        for options in ({}, {"depth": 12, "tied": True}, {"depth": 4, "matched": True})
    ]
    assert counts[0] == counts[1] == counts[2]
