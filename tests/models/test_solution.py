"""The record of each call of an equilibrium: its own, whatever the order in which calls and backward passes
come; and the objects that a solve is made of, which are what their shorthands mean.
"""

import copy
import gc
import weakref
from functools import partial

import pytest
import torch

from deq_collapse.errors import UserError
from deq_collapse.models import (
    Anderson,
    Broyden,
    ConvCell,
    Equilibrium,
    FixedPoint,
    Implicit,
    JacobianFree,
    Phantom,
    Tolerance,
    Unrolled,
)
from deq_collapse.models.solvers import SOLVERS, name_of, solver_of

SHAPE = (3, 2, 2)
cell = partial(ConvCell, lipschitz=0.9)


def images(n=5):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, *SHAPE, dtype=torch.float64, generator=draw).requires_grad_()


def alone(exact, h0, loss):
    refinement = exact()
    z, solution = refinement.solve(h0)
    loss(z).backward()
    return solution


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first", "last"])
def test_two_calls_before_their_backward_passes_have_records_of_their_own(exact, order):
    """The batches differ in size and the losses in kind, so that no record could pass for the other's."""
    batches = [images(3).detach(), 1e3 * images(5).detach()]
    losses = [lambda z: z.sum(), lambda z: (z[:, :1] ** 3).sum()]
    expected = [alone(exact, h0, loss) for h0, loss in zip(batches, losses, strict=True)]
    refinement = exact()
    calls = [refinement.solve(h0) for h0 in batches]
    assert not any(solution.backward for _, solution in calls)
    for i in order:
        z, solution = calls[i]
        losses[i](z).backward()
        (backward,) = solution.backward
        for ours, same in ((solution.forward, expected[i].forward), (backward, expected[i].backward[0])):
            assert ours.evaluations == same.evaluations
            assert torch.equal(ours.residual, same.residual)


def test_each_backward_pass_over_one_graph_is_noted(exact):
    h0 = images()
    z, solution = exact().solve(h0)
    for times in (1, 2, 3):
        torch.autograd.grad(z.sum(), h0, retain_graph=True)
        assert len(solution.backward) == times


def test_what_is_recorded_are_the_calls_of_the_block_and_nothing_else(exact):
    refinement, h0 = exact(), images()
    refinement(h0)
    with refinement.recorded() as outer:
        refinement(h0)
        with refinement.recorded() as inner:
            refinement.eval()(h0[:2])
        refinement.train()(h0[:3])
    latest = refinement.latest
    refinement(h0)
    assert [len(solution.state) for solution in outer] == [5, 2, 3]
    assert inner == outer[1:2]
    assert outer[2] is latest
    assert [solution.gradient for solution in outer] == [Implicit(), None, Implicit()]


def test_a_copys_calls_are_not_recorded_and_its_records_not_copied(exact):
    """Costs of a training step are counted on a copy, while the step itself is being recorded."""
    refinement, h0 = exact(jacobian_weight=1.0), images()
    refinement(h0)
    with refinement.recorded() as record:
        copy.deepcopy(refinement)(h0)
    assert record == []


def test_a_record_keeps_no_graph_alive(exact):
    """Diagnostics keep an epoch's records: the activations of its steps must not stay with them."""
    refinement, h0 = exact(), images()
    z, solution = refinement.solve(h0)
    z.sum().backward()
    graph = weakref.ref(z.grad_fn)
    del z
    assert graph() is None, gc.get_referrers(graph())
    assert not solution.state.requires_grad
    assert solution.backward


@pytest.mark.parametrize(
    ("text", "gradient"),
    [
        ("ift", Implicit()),
        ("jfb", JacobianFree()),
        ("phantom(3, 0.5)", Phantom(3, 0.5)),
        ("unrolled(7)", Unrolled(7)),
    ],
)
@pytest.mark.parametrize("name", SOLVERS)
def test_an_object_gives_what_its_shorthand_gives(name, text, gradient):
    results = []
    for options in (
        {"solver": name, "gradient": text, "tol": 1e-6, "max_iter": 30},
        {"solver": SOLVERS[name], "gradient": gradient, "tol": Tolerance(1e-6, 30)},
    ):
        torch.manual_seed(0)
        refinement, h0 = Equilibrium(SHAPE, cell, **options).double(), images()
        refinement(h0).sin().sum().backward()
        results.append([h0.grad, *(p.grad for p in refinement.parameters())])
        assert str(refinement.gradient) == text
        assert name_of(refinement.solver) == name
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_each_direction_has_a_tolerance_and_a_limit_of_its_own(exact):
    refinement = exact(
        tol=Tolerance(1e-30, 7), backward_tol=Tolerance(1e-30, 5), eval_tol=Tolerance(1e-30), eval_max_iter=9
    )
    refinement(images()).sum().backward()
    assert refinement.latest.forward.evaluations == 7
    assert refinement.latest.backward[0].evaluations == 5
    refinement.eval()(images())
    assert refinement.latest.forward.evaluations == 9


def test_a_solver_of_other_settings_is_used_and_told_by_them(exact):
    counts = {}
    for window in (2, 10):
        refinement = exact(norm=0.95, symmetric=True, solver=Broyden(window))
        refinement(images())
        counts[window] = refinement.latest.forward.evaluations
    assert counts[10] < counts[2]
    assert name_of(Broyden(2)) == "Broyden(window=2)"
    assert name_of(FixedPoint(0.5)) == "FixedPoint(damping=0.5)"
    assert solver_of("anderson_relative") == Anderson()


@pytest.mark.parametrize(
    "wrong", [{"relative": 0.0}, {"relative": float("nan")}, {"relative": 1e-3, "max_iter": 0}]
)
def test_a_tolerance_out_of_range_is_refused(wrong):
    with pytest.raises(UserError, match=r"above 0|at least 1"):
        Equilibrium(SHAPE, cell, tol=Tolerance(**wrong))


@pytest.mark.parametrize("gradient", [Phantom(0, 0.5), Phantom(2, 0.0), Unrolled(0)])
def test_a_gradient_out_of_range_is_refused(gradient):
    with pytest.raises(UserError, match=r"at least 1|above 0"):
        Equilibrium(SHAPE, cell, gradient=gradient)


def test_a_solver_out_of_range_is_refused():
    with pytest.raises(UserError, match="window is 0"):
        Equilibrium(SHAPE, cell, solver=Anderson(window=0))
