"""The unfolded refinement: what a solver iterates, as an explicit network."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deq_collapse.callbacks.along import blocks
from deq_collapse.callbacks.costs import flops_per_image
from deq_collapse.errors import UserError
from deq_collapse.models import Equilibrium, Explicit, LinearCell, MDEQCell, MonotoneCell, Unfolded

few = settings(max_examples=25)
shapes = st.one_of(
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)), st.tuples(st.integers(1, 8))
)


def pair(depth, shape, cell, seed=0, **options):
    """An unfolded network and the DEQ of the same weights, in float64, whose solve never stops early."""
    torch.manual_seed(seed)
    unfolded = Unfolded(shape, cell, depth).double()
    options = {"tol": 1e-300, "eval_tol": 1e-300, "max_iter": depth, "eval_max_iter": depth} | options
    equilibrium = Equilibrium(shape, cell, solver="fixed_point_relative", **options).double()
    equilibrium.cell.load_state_dict(unfolded.cell.state_dict())
    return unfolded, equilibrium


@few
@given(st.integers(1, 6), shapes, st.sampled_from([LinearCell, MonotoneCell]), st.integers(0, 2**31))
def test_it_is_the_equilibrium_after_as_many_evaluations(depth, shape, cell, seed):
    cell, shape = (cell, shape) if cell is MonotoneCell else (cell, shape[:1])
    unfolded, equilibrium = pair(depth, shape, cell, seed)
    h0, seen = torch.randn(3, *shape, dtype=torch.float64), []
    equilibrium.iterate.register_forward_hook(lambda module, args, out: seen.append(out))
    z = unfolded.eval()(h0)
    equilibrium.eval()(h0)
    torch.testing.assert_close(z, seen[depth - 1])


@few
@given(st.integers(1, 6), shapes, st.integers(0, 2**31))
def test_its_gradient_is_that_of_an_unrolled_equilibrium(depth, shape, seed):
    unfolded, equilibrium = pair(depth, shape, MonotoneCell, seed, gradient=f"unrolled({depth})")
    h0 = torch.randn(3, *shape, dtype=torch.float64)
    for refinement in (unfolded, equilibrium):
        refinement(h0).sin().sum().backward()
    for ours, theirs in zip(unfolded.parameters(), equilibrium.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_its_gradient_tends_to_the_equilibriums_with_depth():
    options = {"gradient": "ift", "tol": 1e-13, "backward_tol": 1e-13, "max_iter": 1000}
    h0, errors = torch.randn(5, 12, dtype=torch.float64), []
    for depth in (1, 3, 6, 12, 24):
        unfolded, equilibrium = pair(depth, (12,), partial(MonotoneCell, m=1.0), **options)
        for refinement in (unfolded, equilibrium):
            refinement(h0).sin().sum().backward()
        pairs = zip(unfolded.parameters(), equilibrium.parameters(), strict=True)
        errors.append(max(float((a.grad - b.grad).norm() / b.grad.norm()) for a, b in pairs))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9


def test_it_comes_near_a_fixed_point_where_repeating_the_layer_runs_away():
    torch.manual_seed(0)
    unfolded = Unfolded((12,), partial(MonotoneCell, m=1.0), depth=200).double()
    with torch.no_grad():
        for parameter in unfolded.parameters():
            parameter.mul_(4)
    tied = Explicit((12,), partial(MonotoneCell, m=1.0), depth=200, tied=True).double()
    tied.blocks[0].load_state_dict(unfolded.cell.state_dict())
    h0 = torch.randn(5, 12, dtype=torch.float64)
    z, layered = unfolded(h0), tied(h0)
    torch.testing.assert_close(unfolded.cell(z, h0), z)
    assert (tied.blocks[0](layered, h0) - layered).norm() > layered.norm()


def test_a_state_of_another_shape_is_read_out():
    cell, h0 = partial(MDEQCell, groups=2), torch.randn(2, 4, 4, 4)
    unfolded = Unfolded((4, 4, 4), cell, depth=3).eval()
    f, state = unfolded.cell.at(h0), unfolded.cell.start(h0)
    assert torch.equal(unfolded(h0), unfolded.cell.output(f(f(f(state)))))


def test_every_step_can_be_watched_as_those_of_a_solver():
    unfolded, seen = Unfolded((3, 4, 4), MonotoneCell, depth=5), []
    assert blocks(unfolded) == ["refinement.iterate"]
    unfolded.iterate.register_forward_hook(lambda module, args, out: seen.append(out))
    z = unfolded(torch.randn(2, 3, 4, 4))
    assert len(seen) == 5
    assert seen[-1] is z
    assert all((state >= 0).all() for state in seen)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype):
    unfolded, h0 = Unfolded((3, 4, 4), MonotoneCell, depth=4), torch.randn(2, 3, 4, 4).to(dtype)
    plain = unfolded(h0.float())
    with torch.autocast("cpu", dtype):
        assert torch.equal(unfolded(h0), plain)


def test_weights_of_half_precision_are_refused():
    with pytest.raises(UserError, match="bf16-mixed"):
        Unfolded((6,), MonotoneCell, depth=2).bfloat16()(torch.randn(2, 6, dtype=torch.bfloat16))


def test_each_step_costs_one_evaluation():
    flops = [flops_per_image(Unfolded((6,), LinearCell, depth), torch.randn(1, 6)) for depth in (1, 2, 5)]
    assert flops[2] - flops[1] == pytest.approx(3 * (flops[1] - flops[0]))
    assert flops[1] > flops[0]


def test_it_takes_a_step_at_least():
    with pytest.raises(UserError, match="at least 1 step"):
        Unfolded((6,), MonotoneCell, depth=0)
