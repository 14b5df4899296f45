"""The gradient modes: what each one is, how they meet in the limit, and what none of them does in silence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deq_collapse.errors import UserError
from deq_collapse.models import ConvCell, Equilibrium
from deq_collapse.models.gradients import Gradient

SHAPE = (3, 2, 2)
MODES = ["ift", "jfb", "phantom(3, 0.5)", "unrolled(7)"]
every_mode = pytest.mark.parametrize("gradient", MODES)


def images(n=5):
    return torch.randn(
        n, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    ).requires_grad_()


def gradients(refinement, h0, loss=lambda z: z.sin().sum()):
    return torch.autograd.grad(loss(refinement(h0)), [h0, *refinement.cell.parameters()])


def assert_equal_gradients(refinement, other, h0, tolerance):
    for a, b in zip(gradients(refinement, h0), gradients(other, h0), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.abs().max()))


@given(k=st.integers(1, 999), tau=st.floats(1e-3, 1))
@settings(derandomize=True)
def test_a_mode_is_read_from_the_text_it_is_called_by(k, tau):
    for text in ("ift", "jfb", f"phantom({k}, {tau:g})", f"unrolled({k})"):
        assert str(Gradient.parse(text)) == text


@pytest.mark.parametrize("text", ["phantom(5,.5)", " phantom( 5 , 0.5 ) ", "phantom(5, 5e-1)"])
def test_blanks_and_ways_to_write_a_number_do_not_matter(text):
    assert str(Gradient.parse(text)) == "phantom(5, 0.5)"


NOT_MODES = [
    "",
    "IFT",
    "ift(1)",
    "phantom",
    "phantom(5)",
    "phantom(0, 0.5)",
    "phantom(5, 0)",
    "phantom(5, 1.5)",
]
NOT_MODES += [
    "phantom(5, 0.5",
    "phantom(5, 1.2.3)",
    "unrolled(0)",
    "unrolled(-1)",
    "unrolled(2.5)",
    "unrolled(3, 1)",
]


@pytest.mark.parametrize("text", NOT_MODES)
def test_any_other_text_is_refused_in_one_sentence_that_names_the_four(text):
    with pytest.raises(UserError, match=r"one of ift, jfb, phantom\(k, tau\) and unrolled\(k\).*\.$"):
        Equilibrium(SHAPE, ConvCell, gradient=text)


def test_a_phantom_of_one_undamped_step_is_jfb(exact):
    h0 = images()
    one, other = (gradients(exact(gradient=g), h0) for g in ("phantom(1, 1)", "jfb"))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_phantom_is_the_derivative_of_its_damped_steps_from_the_fixed_point(exact):
    refinement, h0 = exact(gradient="phantom(3, 0.4)"), images()
    z = refinement.cell.fixed_point(h0).detach()
    for _ in range(3):
        z = 0.6 * z + 0.4 * refinement.cell(z, h0)
    by_hand = torch.autograd.grad(z.sin().sum(), [h0, *refinement.cell.parameters()])
    for a, b in zip(gradients(refinement, h0), by_hand, strict=True):
        torch.testing.assert_close(a, b)


def test_the_more_steps_a_phantom_takes_the_nearer_it_is_to_ift(exact):
    h0, ift = images(), exact()
    errors = []
    for k in (1, 4, 16, 64, 256):
        pairs = zip(gradients(exact(gradient=f"phantom({k}, 0.5)"), h0), gradients(ift, h0), strict=True)
        errors.append(max(float((a - b).norm() / b.norm()) for a, b in pairs))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.3
    assert errors[-1] < 1e-4  # 0.95 to the power 256 bounds it
    assert_equal_gradients(exact(gradient="phantom(600, 0.5)"), ift, h0, 1e-10)


def test_unrolled_far_enough_is_the_fixed_point_and_its_gradient(exact):
    h0, unrolled = images(), exact(gradient="unrolled(400)")
    torch.testing.assert_close(unrolled(h0), unrolled.cell.fixed_point(h0), rtol=0, atol=1e-10)
    assert_equal_gradients(unrolled, exact(), h0, 1e-10)


def test_unrolled_is_its_plain_steps_and_tells_how_far_from_a_fixed_point_they_end(exact):
    refinement, h0 = exact(gradient="unrolled(3)", tol=1e-3), images()
    steps = [torch.zeros_like(h0)]
    for _ in range(3):
        steps.append(refinement.cell(steps[-1], h0))
    refinement.cell.evaluations = 0
    assert torch.equal(refinement(h0), steps[3])
    solve = refinement.forward_solve
    assert solve.evaluations == refinement.cell.evaluations == 3
    difference, size = ((z.flatten(1).norm(dim=1)) for z in (steps[3] - steps[2], steps[3]))
    torch.testing.assert_close(solve.residual, (difference / size).detach())
    assert solve.missed.all()
    assert refinement.backward_solve is None


def test_gradients_of_unrolled_steps_pass_gradcheck_and_so_do_their_own(exact):
    refinement = exact(shape=(2, 1, 1), gradient="unrolled(4)")
    names, values = zip(*refinement.named_parameters(), strict=True)

    def function(h0, *weights):
        out = torch.func.functional_call(refinement, dict(zip(names, weights, strict=True)), (h0,))
        return out.sin()

    inputs = [v.detach().clone().requires_grad_() for v in (images(2)[:, :2, :1, :1], *values)]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("gradient", MODES[:3])
def test_second_derivatives_that_would_be_wrong_are_refused(exact, gradient):
    refinement, h0 = exact(gradient=gradient), images()
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(refinement(h0).sum(), h0, create_graph=True)


@every_mode
@pytest.mark.parametrize("solver", ["anderson_relative", "broyden_relative", "fixed_point_relative"])
def test_what_is_measured_does_not_depend_on_the_gradient_mode(exact, gradient, solver):
    h0 = images().detach()
    reference, refinement = exact(solver=solver).eval(), exact(solver=solver, gradient=gradient).eval()
    assert torch.equal(refinement(h0), reference(h0))
    assert refinement.forward_solve.evaluations == reference.forward_solve.evaluations
    torch.testing.assert_close(refinement(h0), refinement.cell.fixed_point(h0), rtol=0, atol=1e-10)
