"""The solvers: what they reach, what it costs, and what becomes of each sample."""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deq_collapse.errors import UserError
from deq_collapse.models import Equilibrium, LinearCell
from deq_collapse.models.solvers import (
    CAPPED,
    CONVERGED,
    DIVERGED,
    SOLVERS,
    Anderson,
    Broyden,
    FixedPoint,
    mixing_weights,
    name_of,
    norms,
    relative_residual,
)

few = settings(max_examples=25)
each = pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)
accelerated = pytest.mark.parametrize("solve", [Anderson(), Broyden()], ids=["anderson", "broyden"])


class Affine:
    """``z -> z A^T + c`` per sample, with symmetric A of a known norm; counts its evaluations."""

    def __init__(self, norm: float, n: int = 16, d: int = 40, dtype: torch.dtype = torch.float64) -> None:
        draw = torch.Generator().manual_seed(0)
        a = torch.randn(d, d, dtype=torch.float64, generator=draw)
        a = a + a.T
        self.A = (norm * a / torch.linalg.matrix_norm(a, 2)).to(dtype)
        self.c = torch.randn(n, d, dtype=torch.float64, generator=draw).to(dtype)
        self.evaluations = 0

    def __call__(self, z: Tensor) -> Tensor:
        self.evaluations += 1
        return z @ self.A.T + self.c

    @property
    def start(self) -> Tensor:
        return torch.zeros_like(self.c)

    @property
    def solution(self) -> Tensor:
        eye = torch.eye(len(self.A), dtype=torch.float64)
        return torch.linalg.solve(eye - self.A.double(), self.c.double().T).T


@each
@pytest.mark.parametrize("exponent", [-60, -100, 60, 100])
def test_units_do_not_matter(solve, exponent):
    # By a power of two nothing rounds otherwise: the adjoint equation of a tiny loss is solved as that of 1.
    f = Affine(0.9, dtype=torch.float32)
    expected, _, stat = solve(f, f.start, max_iter=50, tol=1e-5)
    assert stat["evaluations"] > 5
    f.c = torch.ldexp(f.c, torch.tensor(exponent))
    seen = []
    found, _, again = solve(f, f.start, max_iter=50, tol=1e-5, watch=seen.append)
    torch.testing.assert_close(found, torch.ldexp(expected, torch.tensor(exponent)), rtol=0, atol=0)
    assert torch.equal(seen[-1], found)
    assert again["evaluations"] == stat["evaluations"]
    assert torch.equal(again["status"], stat["status"])
    assert torch.equal(again["rel_trace"], stat["rel_trace"])


@each
def test_each_sample_has_units_of_its_own(solve):
    f = Affine(0.9, dtype=torch.float32)
    scale = torch.tensor([0.0, 1.0, 1e-25, 1e25]).repeat(4)[:, None]
    f.c *= scale
    found, _, stat = solve(f, f.start, max_iter=200, tol=1e-6)
    assert (stat["status"] == CONVERGED).all()
    torch.testing.assert_close(
        found / scale.where(scale > 0, 1), (f.solution / scale.where(scale > 0, 1)).float(), rtol=0, atol=1e-3
    )


@each
def test_the_solution_of_an_affine_contraction_is_the_closed_form(solve):
    f = Affine(0.9)
    z, _, stat = solve(f, f.start, max_iter=1000, tol=1e-13)
    assert (stat["status"] == CONVERGED).all()
    torch.testing.assert_close(z, f.solution, rtol=0, atol=1e-11)


@each
def test_what_is_reported_is_what_was_reached(solve):
    f = Affine(0.9)
    z, _, stat = solve(f, f.start, max_iter=1000, tol=1e-6)
    assert stat["evaluations"] == f.evaluations
    assert (stat["rel_lowest"] <= 1e-6).all()
    # The z returned is one evaluation further on than the point whose residual was reported.
    assert (relative_residual(norms(f(z) - z), f(z)) <= 1e-6).all()


@each
@pytest.mark.parametrize("n", [1, 5])
def test_an_affine_map_that_ignores_z_is_solved_by_its_second_evaluation(solve, n):
    f = Affine(0.9, n)
    f.A.zero_()
    z, _, stat = solve(f, f.start, tol=1e-12)
    assert torch.equal(z, f.c)
    assert stat["evaluations"] == 2


@each
def test_a_fixed_point_at_the_start_takes_one_evaluation(solve):
    z, _, stat = solve(lambda z: z / 2, torch.zeros(3, 4))
    assert not z.any()
    assert stat["evaluations"] == 1
    assert (stat["status"] == CONVERGED).all()


@accelerated
@few
@given(norm=st.floats(0.01, 0.98), tol=st.sampled_from([1e-3, 1e-6, 1e-9]))
def test_acceleration_costs_at_most_one_evaluation_more_than_plain_iteration(solve, norm, tol):
    f = Affine(norm)
    counts = [s(f, f.start, max_iter=3000, tol=tol)[2]["evaluations"] for s in (solve, FixedPoint())]
    assert counts[0] <= counts[1] + 1  # one more in all of 6, where each evaluation gains a digit anyway


@accelerated
@pytest.mark.parametrize("norm", [0.9, 0.95, 0.99])
def test_acceleration_takes_less_than_half_the_evaluations_near_the_edge_of_contraction(solve, norm):
    f = Affine(norm)
    counts = [s(f, f.start, max_iter=3000, tol=1e-5)[2]["evaluations"] for s in (solve, FixedPoint())]
    assert counts[0] < counts[1] / 2


@accelerated
def test_acceleration_persists_at_tiny_residuals(solve):
    """An absolute ridge switches it off there: torchdeq's, of 1e-4, does at a residual norm of 1e-2."""
    f = Affine(0.95)
    _, _, stat = solve(f, f.start, max_iter=3000, tol=1e-10)
    worst = stat["rel_trace"].max(0).values
    to_5, to_10 = (int((worst > 10.0**-digits).sum()) for digits in (5, 10))
    _, _, plain = FixedPoint()(f, f.start, max_iter=3000, tol=1e-10)
    assert to_10 <= 2.5 * to_5  # the second five digits cost about what the first five did
    assert plain["evaluations"] > 4 * to_10


@each
@pytest.mark.parametrize("scale", [1e-4, 1e-8, 1e-12, 1e-16])
def test_evaluations_and_accuracy_do_not_depend_on_the_scale_of_the_equation(solve, scale):
    """As the loss vanishes, so does the right side of the adjoint equation; float32."""
    f, tiny = Affine(0.95, dtype=torch.float32), Affine(0.95, dtype=torch.float32)
    tiny.c *= scale
    (z, _, stat), (z_tiny, _, stat_tiny) = (solve(g, g.start, max_iter=500, tol=1e-4) for g in (f, tiny))
    assert abs(stat["evaluations"] - stat_tiny["evaluations"]) <= 1
    assert (stat_tiny["status"] == CONVERGED).all()
    torch.testing.assert_close(z_tiny / scale, z, rtol=0, atol=1e-2)


@pytest.mark.parametrize("solve", [FixedPoint(0.5), Anderson(damping=0.5)], ids=["plain", "anderson"])
def test_a_damped_solve_ends_at_the_same_solution(solve):
    f = Affine(0.9)
    z, _, stat = solve(f, f.start, max_iter=1000, tol=1e-13)
    assert (stat["status"] == CONVERGED).all()
    torch.testing.assert_close(z, f.solution, rtol=0, atol=1e-11)


def test_damping_solves_where_plain_iteration_swings_to_infinity():
    """Eigenvalues from -2 to 0: a third of each step is contracting, with factors from 0 to 2/3."""
    f = Affine(1.0)
    f.A = -f.A @ f.A * 2
    z, _, stat = FixedPoint(damping=2 / 3)(f, f.start, max_iter=200, tol=1e-10)
    assert (stat["status"] == CONVERGED).all()
    torch.testing.assert_close(z, f.solution, rtol=0, atol=1e-8)
    _, _, plain = FixedPoint()(f, f.start, max_iter=200, tol=1e-10)
    assert (plain["rel_lowest"] > 0.1).all()


def test_anderson_that_remembers_one_point_is_plain_iteration_damped_alike():
    """Walker & Ni's algorithm with m = 0 is the iteration ``x + beta (f(x) - x)``."""
    f = Affine(0.9)
    for damping in (0.0, 0.3):
        one, other = (
            s(f, f.start, max_iter=7) for s in (Anderson(window=1, damping=damping), FixedPoint(damping))
        )
        torch.testing.assert_close(one[0], other[0])


def test_a_damped_step_of_anderson_keeps_its_share_of_the_combined_points():
    """Two evaluations leave residuals r0, r1; the third is at ``sum w_i (f(x_i) - damping r_i)``."""
    f, seen = Affine(0.9, n=3), []

    def watched(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return f(x)

    Anderson(ridge=0.0, damping=0.25)(watched, f.start, max_iter=3, tol=1e-14)
    points = torch.stack(seen[:2], 1)
    values = torch.stack([f(x) for x in seen[:2]], 1)
    residuals = values - points
    weights = mixing_weights(residuals @ residuals.mT, 0.0)[..., None]
    torch.testing.assert_close(seen[1], 0.75 * values[:, 0] + 0.25 * points[:, 0])
    torch.testing.assert_close(seen[2], (weights * (0.75 * values + 0.25 * points)).sum(1))


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (FixedPoint, {"damping": 1.0}),
        (FixedPoint, {"damping": -0.1}),
        (Anderson, {"damping": float("nan")}),
        (Anderson, {"window": 0}),
        (Anderson, {"ridge": -1.0}),
        (Broyden, {"window": 0}),
    ],
)
def test_settings_out_of_range_are_refused_in_one_sentence(make, wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=rf"^{name} is .*\.$"):
        make(**wrong).check()


def test_broyden_solves_a_linear_equation_of_dimension_d_in_2d_steps_whatever_its_norm():
    """Gay, "Some Convergence Properties of Broyden's Method", 1979; plain iteration runs away here."""
    f = Affine(3.0, n=8, d=5)
    z, _, stat = Broyden(window=100)(f, f.start, max_iter=11, tol=1e-9)  # 2d steps lead to a point 2d + 1
    assert (stat["status"] == CONVERGED).all()
    torch.testing.assert_close(z, f.solution, rtol=1e-7, atol=0)
    _, _, plain = FixedPoint()(f, f.start, max_iter=11, tol=1e-9)
    assert (plain["rel_lowest"] > 0.1).all()


def test_a_solver_that_may_remember_everything_keeps_no_more_than_its_evaluations():
    """A memory of a thousand million states would not fit anywhere."""
    f = Affine(0.5)
    z, _, stat = Broyden(window=10**9)(f, f.start, max_iter=30, tol=1e-6)
    assert (stat["status"] == CONVERGED).all()
    torch.testing.assert_close(z, f.solution, rtol=0, atol=1e-4)
    for solver in (Anderson, Broyden):
        many, few = (solver(window=window)(f, f.start, max_iter=9, tol=1e-9)[0] for window in (10**9, 9))
        assert torch.equal(many, few)


def test_where_broydens_update_is_singular_a_sample_starts_anew_and_its_mates_do_not_notice():
    """``f(z) = z + c`` has no fixed point, and its residual does not change: the secant has no inverse."""
    g = Affine(0.9, n=2)

    def f(z: Tensor) -> Tensor:
        return torch.cat([z[:1] + 1, g(z)[1:]])

    z, _, stat = Broyden()(f, g.start, max_iter=60, tol=1e-10)
    assert stat["status"].tolist() == [CAPPED, CONVERGED]
    assert z.isfinite().all()
    torch.testing.assert_close(z[1], g.solution[1], rtol=0, atol=1e-8)


@each
def test_solves_in_and_out_of_inference_mode_may_follow_each_other(solve):
    f = Affine(0.9)
    z, _, _ = solve(f, f.start, tol=1e-8, max_iter=300)
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            g = Affine(0.9)
            assert torch.equal(solve(g, g.start, tol=1e-8, max_iter=300)[0], z)


@each
def test_what_one_solve_returns_outlives_the_next(solve):
    """They may share memory."""
    f, g = Affine(0.9), Affine(0.5)
    z, _, stat = solve(f, f.start, tol=1e-8, max_iter=300)
    kept = z.clone(), stat["rel_trace"].clone()
    solve(lambda x: g(x) + solve(f, f.start, max_iter=3)[0] * 0, g.start, tol=1e-8)  # one within the other
    assert torch.equal(z, kept[0])
    assert torch.equal(stat["rel_trace"], kept[1])


@each
def test_a_samples_solution_does_not_depend_on_its_batch_mates(solve):
    """To rounding: the matrix products of another batch size add up in another order. What must not happen
    is that a sample goes on being iterated because a mate has not converged, which moves it by the tolerance.
    """
    f = Affine(0.95)
    f.c[::2] *= torch.logspace(-6, 3, 8)[:, None]  # mates that are easy and hard
    z, _, stat = solve(f, f.start, max_iter=1000, tol=1e-4)
    for i in range(len(z)):
        alone = lambda x, i=i: x @ f.A.T + f.c[i : i + 1]  # noqa: E731
        z_i, _, stat_i = solve(alone, f.start[i : i + 1], max_iter=1000, tol=1e-4)
        torch.testing.assert_close(z[i], z_i[0], rtol=1e-9, atol=0)
        torch.testing.assert_close(stat["rel_lowest"][i], stat_i["rel_lowest"][0], rtol=1e-6, atol=0)


@each
def test_a_converged_sample_is_left_alone_while_others_go_on(solve):
    """Bitwise: the same batch, with a tolerance that only the first sample's equation meets at once."""
    f = Affine(0.95, n=2)
    f.c[0] = 0  # its solution is its start
    seen: list[Tensor] = []

    def watched(z: Tensor) -> Tensor:
        seen.append(z.clone())
        return f(z)

    z, _, stat = solve(watched, f.start, max_iter=1000, tol=1e-8)
    assert not z[0].any()
    assert torch.equal((stat["rel_trace"] <= 1e-8).sum(1), torch.tensor([len(seen), 1]))


@each
@pytest.mark.parametrize("exponent", [0, -80])
def test_samples_that_are_done_are_evaluated_no_longer_and_nothing_else_changes(solve, exponent):
    """To rounding, as above; one sample is broken, one has no end, the others end one after the other."""
    dtype = torch.float64
    rates = torch.tensor([0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 0.9, 1.0, 0.5], dtype=dtype)
    d = torch.linspace(-1, 1, 30, dtype=dtype)
    c = torch.ldexp(torch.ones(10, 30, dtype=dtype), torch.tensor(exponent))
    c[9] = torch.nan
    rows = 0

    def narrowed(at: Tensor):
        def f(z: Tensor) -> Tensor:
            nonlocal rows
            rows += len(z)
            return rates[at, None] * d * z + c[at]

        return f

    f, start, seen = narrowed(torch.arange(10)), torch.zeros_like(c), []
    z, _, stat = solve(f, start, max_iter=90, tol=1e-9)
    whole, rows = rows, 0
    found, _, again = solve(f, start, max_iter=90, tol=1e-9, narrowed=narrowed, watch=seen.append)
    assert whole == 10 * stat["evaluations"]
    assert rows < 0.8 * whole
    assert again["evaluations"] == stat["evaluations"]
    assert torch.equal(again["status"], stat["status"])
    assert {CONVERGED, DIVERGED} <= set(again["status"].tolist())
    ending = torch.arange(10) != 8  # steps without end amplify the rounding of a processor's matrix products
    torch.testing.assert_close(found[ending], z[ending], rtol=1e-12, atol=0, equal_nan=True)
    torch.testing.assert_close(found[8], z[8], rtol=1e-6, atol=0)
    torch.testing.assert_close(again["rel_trace"], stat["rel_trace"], rtol=1e-3, atol=1e-13)
    assert torch.equal(seen[-1], found)


@each
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_sample_that_is_not_finite_stays_alone_and_is_called_diverged(solve, bad):
    f, healthy = Affine(0.9), Affine(0.9)
    f.c[3, 0] = bad
    z, _, stat = solve(f, f.start, max_iter=1000, tol=1e-8)
    z_healthy, _, _ = solve(healthy, healthy.start, max_iter=1000, tol=1e-8)
    others = torch.arange(16) != 3
    assert torch.equal(z[others], z_healthy[others])
    assert (stat["status"][others] == CONVERGED).all()
    assert stat["status"][3] == DIVERGED
    assert z.isfinite().all()


@each
def test_a_sample_that_breaks_late_keeps_its_last_finite_value(solve):
    def f(z: Tensor) -> Tensor:
        poisoned = (z > 1.4) & torch.tensor([[False], [True]])
        return torch.where(poisoned, float("nan"), z / 2 + 1)

    z, _, stat = solve(f, torch.zeros(2, 1), max_iter=100, tol=1e-6)
    assert stat["status"].tolist() == [CONVERGED, DIVERGED]
    torch.testing.assert_close(z[0], torch.tensor([2.0]), atol=1e-5, rtol=0)
    assert z[1].isfinite().all()
    assert stat["rel_lowest"][1] > 1e-6


@each
def test_what_ran_out_of_evaluations_says_so_and_gives_its_last_residual(solve):
    f = Affine(0.95)
    f.c[0] = 0
    _, _, stat = solve(f, f.start, max_iter=3, tol=1e-12)
    assert f.evaluations == stat["evaluations"] == 3
    assert stat["status"].tolist() == [CONVERGED] + [CAPPED] * 15
    assert (stat["rel_lowest"][1:] > 1e-12).all()
    assert stat["rel_trace"].shape == (16, 3)


@each
def test_one_evaluation_is_enough_to_be_asked_for(solve):
    f = Affine(0.9)
    z, _, stat = solve(f, f.start, max_iter=1)
    assert torch.equal(z, f.c)
    assert stat["evaluations"] == 1


@each
def test_an_absolute_tolerance_and_no_evaluations_are_refused(solve):
    with pytest.raises(ValueError, match="stop_mode='rel'"):
        solve(lambda z: z, torch.zeros(1, 1), stop_mode="abs")
    with pytest.raises(ValueError, match="at least 1"):
        solve(lambda z: z, torch.zeros(1, 1), max_iter=0)


@each
def test_an_unknown_option_does_not_pass_silently(solve):
    with pytest.raises(TypeError, match="lam"):
        solve(lambda z: z, torch.zeros(1, 1), lam=1e-4)


@given(scale=st.floats(1e-12, 1e12), seed=st.integers(0, 2**31))
def test_mixing_weights_sum_to_one_and_do_not_depend_on_the_scale_of_the_residuals(scale, seed):
    r = torch.randn(7, 3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    weights, scaled = (mixing_weights(x @ x.mT, 1e-7) for x in (r, r * scale))
    torch.testing.assert_close(weights.sum(1), torch.ones(7, dtype=torch.float64))
    torch.testing.assert_close(weights, scaled)


def test_mixing_weights_give_the_combination_with_the_least_norm():
    r = torch.randn(1, 3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = mixing_weights(r @ r.mT, 0.0)
    combined = weights[:, None] @ r
    # At the minimum over weights that sum to one, all inner products with the residuals are equal.
    products = (r @ combined.mT).squeeze()
    torch.testing.assert_close(products, products[:1].expand(3))


def test_mixing_weights_of_a_singular_system_are_equal():
    for value, ridge in ((0.0, 0.0), (0.0, 1e-7), (1e30, 0.0), (float("nan"), 1e-7)):
        assert torch.equal(mixing_weights(torch.full((1, 4, 4), value), ridge), torch.full((1, 4), 0.25))


def test_the_residual_of_two_zeros_is_zero_and_of_tiny_vectors_is_relative():
    fx = torch.tensor([[0.0, 0.0], [2e-12, 0.0], [3.0, 4.0]])
    x = torch.tensor([[0.0, 0.0], [1e-12, 0.0], [3.0, 4.0]])
    torch.testing.assert_close(relative_residual(norms(fx - x), fx), torch.tensor([0.0, 0.5, 0.0]))


def _named_alike(factor):
    @dataclass(frozen=True)
    class Own(FixedPoint):
        def __call__(self, func, x0, **options):
            return FixedPoint.__call__(self, lambda z: factor * func(z), x0, **options)

    return Own


def test_solvers_of_one_name_from_two_modules_stay_apart():
    one, two = _named_alike(1.0), _named_alike(0.5)
    two.__module__ = "another.module"
    assert repr(one()) == repr(two())
    solved = [
        Equilibrium((3,), partial(LinearCell, lipschitz=0.5), solver=solver()).eval() for solver in (one, two)
    ]
    solved[1].load_state_dict(solved[0].state_dict())
    first, second = (equilibrium(torch.ones(2, 3)) for equilibrium in solved)
    assert not torch.allclose(first, second)


def test_a_solver_without_a_text_of_its_own_is_named_by_its_import_path():
    class Bare(FixedPoint):
        __repr__ = object.__repr__

    assert name_of(Bare()) == f"{__name__}.{Bare.__qualname__}"
    assert name_of(FixedPoint()) == "fixed_point_relative"
