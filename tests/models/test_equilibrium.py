"""The equilibrium refinement: its value is a fixed point and its gradient that of the fixed point."""

import copy
import pickle
from functools import partial

import pytest
import torch

from deq_collapse.errors import UserError
from deq_collapse.models import Cell, ConvCell, Equilibrium

SOLVERS = ["anderson_relative", "broyden_relative", "fixed_point_relative"]
solvers = pytest.mark.parametrize("solver", SOLVERS)
SHAPE = (3, 2, 2)
cell = partial(ConvCell, lipschitz=0.9)


def images(n=5, dtype=torch.float64, requires_grad=False):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, *SHAPE, dtype=dtype, generator=draw).requires_grad_(requires_grad)


@solvers
@pytest.mark.parametrize("training", [True, False])
def test_a_linear_cells_equilibrium_is_the_closed_form(exact, solver, training):
    refinement, h0 = exact(solver=solver).train(training), images()
    torch.testing.assert_close(refinement(h0), refinement.cell.fixed_point(h0), rtol=0, atol=1e-10)
    assert not refinement.forward_solve.missed.any()


@solvers
def test_a_linear_cells_gradients_are_the_closed_forms(exact, solver):
    refinement, h0 = exact(solver=solver), images(requires_grad=True)
    inputs = [h0, *refinement.cell.parameters()]
    cotangent = torch.randn(5, *SHAPE, dtype=torch.float64)
    ours = torch.autograd.grad((refinement(h0) * cotangent).sum(), inputs)
    closed = torch.autograd.grad((refinement.cell.fixed_point(h0) * cotangent).sum(), inputs)
    for a, b in zip(ours, closed, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * float(b.abs().max()))


@solvers
def test_gradients_of_a_convolution_cell_pass_gradcheck(solver):
    torch.manual_seed(0)
    shape = (2, 2, 2)
    refinement = Equilibrium(shape, cell, solver, tol=1e-14, backward_tol=1e-14, max_iter=300).double()
    for conv in (refinement.cell.inner, refinement.cell.outer):
        conv.weight.data.mul_(10)  # into the bound, so that the scaling is part of what is checked
        conv.power_iteration(500, tol=0)
        conv.power_iteration = lambda: None  # finite differences need one function, not one per call
    names, values = zip(*refinement.named_parameters(), strict=True)

    def function(h0, *weights):
        return torch.func.functional_call(refinement, dict(zip(names, weights, strict=True)), (h0,))

    inputs = [
        v.detach().clone().requires_grad_() for v in (torch.randn(2, *shape, dtype=torch.float64), *values)
    ]
    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("backward", SOLVERS)
@pytest.mark.parametrize("forward", SOLVERS)
def test_each_direction_has_a_solver_of_its_own(exact, forward, backward):
    refinement, h0 = exact(solver=forward, backward_solver=backward), images(requires_grad=True)
    refinement(h0).sum().backward()
    same = exact(solver=forward), exact(solver=backward)
    for other in same:
        other(h0).sum().backward()
    assert refinement.forward_solve.evaluations == same[0].forward_solve.evaluations
    assert refinement.backward_solve.evaluations == same[1].backward_solve.evaluations


def test_solvers_differ_in_what_they_need(exact):
    counts = {}
    for solver in SOLVERS:
        refinement = exact(norm=0.95, symmetric=True, solver=solver, tol=1e-6)
        refinement(images())
        counts[solver] = refinement.forward_solve.evaluations
    assert 2 * max(counts["anderson_relative"], counts["broyden_relative"]) < counts["fixed_point_relative"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"solver": "newton"}, "anderson_relative, broyden_relative, fixed_point_relative"),
        ({"backward_solver": "newton"}, "anderson_relative, broyden_relative, fixed_point_relative"),
        ({"tol": 0.0}, "above 0"),
        ({"backward_tol": float("nan")}, "above 0"),
        ({"max_iter": 0}, "at least 1"),
        ({"jacobian_weight": -1.0}, "at least 0"),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_sentence(wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        Equilibrium(SHAPE, cell, **wrong)


def test_an_unknown_option_is_refused():
    """torchdeq would ignore it."""
    with pytest.raises(TypeError, match="stop_mode"):
        Equilibrium(SHAPE, cell, stop_mode="abs")


def test_a_second_backward_pass_over_one_graph_gives_the_same_gradient(exact):
    refinement, h0 = exact(), images(requires_grad=True)
    loss = refinement(h0).square().sum()
    once, again = (torch.autograd.grad(loss, h0, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, again)


def test_the_graphs_of_two_batches_do_not_mix(exact):
    refinement, one, other = exact(), images(requires_grad=True), images(3, requires_grad=True)
    z_one, z_other = refinement(one), refinement(2 * other)
    (grad,) = torch.autograd.grad(z_one.square().sum() + z_other.sum(), one)
    (alone,) = torch.autograd.grad(refinement(one).square().sum(), one)
    torch.testing.assert_close(grad, alone)


@pytest.mark.parametrize("solver", SOLVERS, ids=[f"backward_{name}" for name in SOLVERS])
@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-8, 1e-16, 1e-18, 1e-20, 1e-28])
def test_gradients_in_float32_are_as_exact_for_a_tiny_loss_as_for_a_large_one(exact, solver, scale):
    """The terminal phase: with an absolute tolerance of 1e-6 the relative error grows to 1e-2 at 1e-6."""
    h0, cotangent = images(64, requires_grad=True), torch.randn(64, *SHAPE, dtype=torch.float64)
    reference = exact(symmetric=True)
    inputs = [h0, *reference.cell.parameters()]
    true = torch.autograd.grad((reference.cell.fixed_point(h0) * cotangent).sum(), inputs)

    refinement = exact(backward_solver=solver, symmetric=True, tol=1e-6, backward_tol=1e-4).float()

    def relative_errors(scale):
        x = h0.detach().float().requires_grad_()
        loss = scale * (refinement(x) * cotangent.float()).sum()
        grads = torch.autograd.grad(loss, [x, *refinement.cell.parameters()])
        assert not refinement.backward_solve.missed.any()
        return torch.stack([(g / scale - t).norm() / t.norm() for g, t in zip(grads, true, strict=True)])

    errors = relative_errors(scale)
    assert (errors < 2e-3).all()  # the tolerance over 1 - 0.9
    torch.testing.assert_close(errors, relative_errors(1.0), rtol=0.1, atol=2e-5)


@solvers
def test_evaluations_reported_are_the_calls_of_the_cell(exact, solver):
    refinement, h0 = exact(solver=solver), images(requires_grad=True)
    z = refinement(h0)
    # One more call attaches the graph, and one more in the backward pass is what its solve differentiates.
    assert refinement.cell.evaluations == refinement.forward_solve.evaluations + 1
    z.sum().backward()
    assert refinement.cell.evaluations == refinement.forward_solve.evaluations + 2
    assert refinement.backward_solve.evaluations > 1
    refinement.eval().cell.evaluations = 0
    refinement(h0)
    assert refinement.cell.evaluations == refinement.forward_solve.evaluations


def test_training_and_measuring_have_tolerances_of_their_own(exact):
    refinement, h0 = exact(tol=1e-3, eval_tol=1e-9), images()
    refinement(h0)
    training = refinement.forward_solve
    refinement.eval()(h0)
    measuring = refinement.forward_solve
    assert measuring.residual.max() <= 1e-9 < training.residual.max() <= 1e-3
    assert training.evaluations < measuring.evaluations


@solvers
def test_samples_that_missed_the_tolerance_are_told_in_both_directions(exact, solver):
    refinement, h0 = exact(solver=solver, max_iter=4, eval_max_iter=6), images()
    refinement(h0).sum().backward()
    for solve in (refinement.forward_solve, refinement.backward_solve):
        assert solve.evaluations == 4
        assert solve.missed.all()
        assert (solve.residual > 1e-13).all()
    refinement.eval()(h0)
    assert refinement.forward_solve.evaluations == 6


def test_a_samples_features_do_not_depend_on_its_batch_mates():
    """To rounding: convolutions of another batch size may add up in another order."""
    torch.manual_seed(0)
    refinement = Equilibrium((4, 5, 6), cell).eval()
    h0 = torch.randn(8, 4, 5, 6) * torch.logspace(-3, 2, 8)[:, None, None, None]
    alone = torch.cat([refinement(h[None]) for h in h0])
    torch.testing.assert_close(refinement(h0), alone, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("training", [True, False])
def test_an_image_that_is_not_finite_harms_no_other(training):
    torch.manual_seed(0)
    refinement, h0 = Equilibrium((4, 5, 6), cell).train(training), torch.randn(4, 4, 5, 6)
    refinement.cell.eval()
    whole = refinement(h0)
    h0[2, 0, 0, 0] = float("nan")
    broken = refinement(h0)
    others = torch.tensor([0, 1, 3])
    assert torch.equal(broken[others], whole[others])
    assert refinement.forward_solve.missed.tolist() == [False, False, True, False]


def test_measuring_twice_gives_equal_bits_and_changes_nothing():
    torch.manual_seed(0)
    refinement, h0 = Equilibrium(SHAPE, cell).eval(), images(dtype=torch.float32)
    before = copy.deepcopy(refinement.state_dict())
    assert torch.equal(refinement(h0), refinement(h0))
    after = refinement.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_a_copy_solves_alike_and_shares_nothing(copied, training):
    torch.manual_seed(0)
    refinement, h0 = (
        Equilibrium(SHAPE, cell, tol=1e-6, max_iter=77).train(training),
        images(dtype=torch.float32),
    )
    refinement(h0).sum().backward() if training else refinement(h0)
    twin = copied(refinement)
    assert twin.training == twin.deq.training == training
    twin.cell.eval(), refinement.cell.eval()
    assert torch.equal(twin(h0), refinement(h0))
    assert twin.forward_solve.evaluations == refinement.forward_solve.evaluations
    assert twin.deq.f_max_iter == 77
    with torch.no_grad():
        twin.cell.inner.weight.zero_()
    assert refinement.cell.inner.weight.any()


def test_weights_move_between_two_equilibria_by_state_dict():
    torch.manual_seed(0)
    one, other = (Equilibrium(SHAPE, cell).eval() for _ in range(2))
    h0 = images(dtype=torch.float32)
    assert not torch.equal(one(h0), other(h0))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(h0), other(h0))


def test_a_cell_of_ones_own_is_solved():
    class Halve(Cell):
        def forward(self, z, h0):
            return z / 2 + h0

    h0 = images()
    z = Equilibrium(SHAPE, lambda shape: Halve(), eval_tol=1e-12).eval()(h0)
    torch.testing.assert_close(z, 2 * h0)


def test_saved_activations_do_not_grow_with_the_number_of_evaluations(exact):
    """What implicit differentiation is for; an unrolled solver would save one state per evaluation."""
    saved = {}
    for max_iter in (2, 50):
        refinement, h0 = exact(max_iter=max_iter, tol=1e-30), images(requires_grad=True)
        tensors = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=tensors: kept.append(t) or t, lambda t: t
        ):
            refinement(h0)
        saved[max_iter] = sum(t.numel() for t in tensors)
    assert saved[2] == saved[50] > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_both_directions_are_solved_in_float32(dtype):
    """Also where the backward pass is called under autocast; bfloat16 alone ends at residuals of 4e-3."""
    torch.manual_seed(0)
    refinement = Equilibrium((4, 5, 6), cell, tol=1e-6, backward_tol=1e-6)
    refinement.cell.eval()  # no power iteration between the two passes
    h0 = torch.randn(8, 4, 5, 6).to(dtype)

    def passes(h0):
        z = refinement(h0)
        gradients = torch.autograd.grad(z.sin().sum(), list(refinement.parameters()))
        assert not refinement.forward_solve.missed.any()
        assert not refinement.backward_solve.missed.any()
        return z, *gradients

    plain = passes(h0.float())
    with torch.autocast("cpu", dtype):
        mixed = passes(h0)
    assert mixed[0].dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_weights_of_half_precision_are_refused(training):
    refinement = Equilibrium(SHAPE, cell).bfloat16().train(training)
    with pytest.raises(UserError, match="bf16-mixed"):
        refinement(images(dtype=torch.bfloat16))


def test_the_jacobian_term_is_the_squared_frobenius_norm_over_the_dimension_in_the_mean(exact):
    """For a linear cell J is A, and the derivative of ``||A||_F^2 / d`` is ``2 A / d``."""
    refinement, h0 = exact(jacobian_weight=0.1), images(5_000)
    refinement(h0)
    A = refinement.cell.A
    torch.testing.assert_close(
        refinement.jacobian.detach(), A.detach().square().sum() / len(A), rtol=0.05, atol=0
    )
    (gradient,) = torch.autograd.grad(refinement.jacobian, A)
    expected = 2 * A.detach() / len(A)
    assert (gradient - expected).norm() < 0.05 * expected.norm()


def test_without_a_weight_the_jacobian_term_costs_nothing(exact):
    refinement, h0 = exact(), images()
    random_state = torch.get_rng_state()
    refinement(h0)
    assert refinement.jacobian is None
    assert refinement.cell.evaluations == refinement.forward_solve.evaluations + 1
    assert torch.equal(random_state, torch.get_rng_state())


@solvers
def test_where_a_solve_starts_does_not_change_where_it_ends(exact, solver):
    refinement, h0 = exact(solver=solver), images()
    cold = refinement(h0)
    counts = [refinement.forward_solve.evaluations]
    for start in (100 * torch.randn(5, *SHAPE, dtype=torch.float64), refinement.state):
        refinement.start = start
        torch.testing.assert_close(refinement(h0), cold, rtol=0, atol=1e-10)
        counts.append(refinement.forward_solve.evaluations)
    assert counts[2] <= 2 < counts[0]  # from its own fixed point it is done at once
    refinement(h0)
    assert refinement.forward_solve.evaluations == counts[0]  # a start is used once
    refinement.start = 100 * torch.randn(5, *SHAPE, dtype=torch.float64)
    measured = refinement.eval()(h0)
    assert torch.equal(measured, exact(solver=solver).eval()(h0))  # and never where it is measured


class Slowing(Cell):
    """A linear map that each sample contracts at a rate of its own, its first number; counts samples."""

    def __init__(self, shape):
        super().__init__()
        self.evaluated = 0

    def forward(self, z, h0):
        self.evaluated += len(z)
        return h0[:, :1] * z + h0


def test_in_eval_mode_a_hard_sample_is_solved_without_its_easy_mates():
    h0 = torch.ones(8, 4, dtype=torch.float64)
    h0[:, 0] = torch.tensor([0.01, 0.01, 0.02, 0.02, 0.01, 0.02, 0.9, 0.95])
    h0[:, 1:] += torch.arange(3) / 10
    refinement = Equilibrium((4,), Slowing, "fixed_point_relative", eval_tol=1e-12, eval_max_iter=700)
    refinement.eval()
    z, solution = refinement.solve(h0)
    torch.testing.assert_close(z, h0 / (1 - h0[:, :1]), rtol=1e-9, atol=0)
    assert not solution.forward.missed.any()
    assert refinement.cell.evaluated < 0.75 * len(h0) * solution.forward.evaluations
