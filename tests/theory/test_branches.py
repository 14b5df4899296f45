"""Explicit and equilibrium branch: gradients, energies, optimality, and where theory orders them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deq_collapse.theory.branch_table import ahead, branch_table
from deq_collapse.theory.branches import (
    Budgets,
    equilibrium_branch,
    equilibrium_cost,
    equilibrium_gradient,
    explicit_branch,
    explicit_cost,
    kkt_residual,
    linear_equilibrium,
    spend,
    split_equilibrium,
)
from deq_collapse.theory.loss import log_cross_entropy
from deq_collapse.theory.minimise import minimise
from deq_collapse.theory.peeled import step_counts

BUDGETS = Budgets(weights=1.0, maps=0.6, inputs=4.0, radius=0.6)
COUNTS = step_counts(4, 2, 5)


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.1, 0.95))
def test_the_gradient_of_the_linear_equilibrium_is_that_of_autograd(seed, radius):
    A = draw(seed, 5, 5)
    A = (A * radius / torch.linalg.matrix_norm(A, 2)).requires_grad_()
    x = draw(seed + 1, 5, 3).requires_grad_()
    z = linear_equilibrium(A, x)
    assert torch.allclose(z, A @ z + x)
    loss = (z.square() * draw(seed + 2, 5, 3)).sum()
    (by_z,) = torch.autograd.grad(loss, z, retain_graph=True)
    expected = torch.autograd.grad(loss, (A, x))
    for found, wanted in zip(equilibrium_gradient(A.detach(), z.detach(), by_z), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-9)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.1, 5), st.floats(0.2, 0.9))
def test_the_split_of_an_equilibrium_has_its_cost_and_no_other_costs_less(seed, scale, radius):
    M = scale * draw(seed, 4, 4)
    A, U = split_equilibrium(M, radius)
    assert torch.allclose(linear_equilibrium(A, U), M)
    assert torch.linalg.matrix_norm(A, 2) <= radius * (1 + 1e-9)
    cost = float(A.square().sum() + U.square().sum())
    assert cost == pytest.approx(float(equilibrium_cost(radius)(torch.linalg.svdvals(M)).sum()), rel=1e-9)
    assert cost < float(M.square().sum())
    for step in (0.3, 0.03, 0.003):
        other = A + step * draw(seed + 1, 4, 4)
        other = other * min(1.0, radius / float(torch.linalg.matrix_norm(other, 2)))
        assert float(other.square().sum() + (M - other @ M).square().sum()) >= cost * (1 - 1e-9)


@pytest.mark.parametrize("cost", [explicit_cost, equilibrium_cost(0.5)])
def test_spending_meets_the_budget_and_has_its_derivative(cost):
    m = (draw(0, 5).abs() + 0.1).requires_grad_()
    t = spend(m, cost, 3.0)
    assert float(cost(t * m).sum().detach()) == pytest.approx(3.0, rel=1e-9)
    (found,) = torch.autograd.grad(t, m)
    for place in range(5):
        shift = 1e-6 * torch.eye(5, dtype=torch.float64)[place]
        slope = (spend(m.detach() + shift, cost, 3.0) - spend(m.detach() - shift, cost, 3.0)) / 2e-6
        assert float(found[place]) == pytest.approx(float(slope), rel=1e-4)


@pytest.mark.parametrize("branch", [explicit_branch, equilibrium_branch])
def test_the_best_point_keeps_its_budgets_and_the_optimality_conditions(branch):
    found = branch(COUNTS, BUDGETS, starts=2)
    k = len(COUNTS)
    assert float(found.classifier.square().sum()) == pytest.approx(k * BUDGETS.weights)
    assert float(found.inputs.square().sum()) == pytest.approx(k * BUDGETS.inputs)
    assert float(found.A.square().sum() + found.U.square().sum()) == pytest.approx(k * BUDGETS.maps)
    assert torch.linalg.matrix_norm(found.A, 2) <= BUDGETS.radius * (1 + 1e-9)
    assert found.residual < 1e-5
    bent = found.U @ torch.linalg.matrix_exp(0.1 * draw(3, 4, 4))
    assert kkt_residual(COUNTS, found.classifier, found.A, bent, found.inputs, BUDGETS.radius) > 1e-3


def test_the_equilibrium_loses_less_than_the_explicit_branch_at_every_point_of_either_bound():
    for bound in ("operator", "energy"):
        table = branch_table(4, [2], [1.0, 5.0], BUDGETS, bound, starts=1)
        lower, known = ahead(table)["loss"]
        assert lower == known == 2
        assert (table["bound"] <= table["loss"] + 1e-9).all()
        assert (table["residual"] < 1e-5).all()


def spent(seed):
    """A random classifier and inputs that spend their budgets."""
    k = len(COUNTS)
    W, H0 = draw(seed, k, k), draw(seed + 1, k, k)
    return W * (k * BUDGETS.weights) ** 0.5 / W.norm(), H0 * (k * BUDGETS.inputs) ** 0.5 / H0.norm()


def within(matrix, limit):
    return matrix * limit / torch.linalg.matrix_norm(matrix, 2)


@pytest.mark.parametrize("branch", ["explicit", "equilibrium"])
def test_with_a_bounded_operator_norm_each_branch_is_a_layer_peeled_model(branch):
    best = branch_table(4, [2], [5.0], BUDGETS, "operator").set_index("branch").loc[branch, "loss"]
    identity, limit = torch.eye(4, dtype=torch.float64), BUDGETS.maps**0.5
    # No map within the bounds gets below the optimum ...
    for seed in range(20):
        W, H0 = spent(seed)
        A, U = within(draw(seed + 2, 4, 4), BUDGETS.radius), within(draw(seed + 3, 4, 4), limit)
        features = linear_equilibrium(A, U @ H0) if branch == "equilibrium" else U @ H0
        assert float(log_cross_entropy(W @ features, COUNTS).exp()) > best
    # ... and multiples of the identity at the bounds attain it.
    map_ = linear_equilibrium(BUDGETS.radius * identity, limit * identity)
    map_ = map_ if branch == "equilibrium" else limit * identity

    def loss(point):
        factors = [t / t.norm() for t in point]
        scale = 4 * (BUDGETS.weights * BUDGETS.inputs) ** 0.5
        return log_cross_entropy(scale * factors[0] @ map_ @ factors[1], COUNTS)

    attained = float(loss(minimise(loss, spent(7), 500)).exp())
    assert attained == pytest.approx(best, rel=1e-6)


def test_with_bounded_features_every_explicit_optimum_is_an_equilibrium():
    """Any features within the budget are the fixed point of a linear DEQ within any radius."""
    H = draw(0, 4, 4)
    for radius in (0.1, 0.9):
        A = radius * torch.eye(4, dtype=torch.float64)
        assert torch.allclose(linear_equilibrium(A, H - A @ H), H)
