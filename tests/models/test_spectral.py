"""The spectral radius against the eigenvalues of the dense Jacobian."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jacrev

from deq_collapse.models import ConvCell, Equilibrium
from deq_collapse.models.spectral import spectral_radius

few = settings(max_examples=15)


def dense_radius(f, z):
    d = z[0].numel()
    jacobians = torch.stack([jacrev(lambda x: f(x[None])[0])(sample).reshape(d, d) for sample in z])
    return torch.linalg.eigvals(jacobians).abs().amax(1)


@few
@given(seed=st.integers(0, 2**31), d=st.integers(2, 12))
def test_a_linear_maps_is_that_of_its_matrix_whatever_the_eigenvalues(seed, d):
    A = torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    ours = spectral_radius(lambda z: z @ A.T, torch.zeros(3, d, dtype=torch.float64))
    torch.testing.assert_close(ours, torch.linalg.eigvals(A).abs().max().expand(3), rtol=1e-8, atol=0)


def test_a_rotations_complex_pair_is_seen():
    """torchdeq's power method gives 0.9 cos 1.2 = 0.33."""
    angle = torch.tensor(1.2)
    A = 0.9 * torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    torch.testing.assert_close(spectral_radius(lambda z: z @ A.T, torch.ones(1, 2)), torch.tensor([0.9]))


def test_of_many_numbers_it_is_near():
    """Eigenvalues that fill a disc are the worst case: none stands out."""
    for seed in range(5):
        A = (
            torch.randn(200, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            / 200**0.5
        )
        ours = spectral_radius(lambda z, A=A: z @ A.T, torch.zeros(1, 200, dtype=torch.float64), steps=64)
        torch.testing.assert_close(ours[0], torch.linalg.eigvals(A).abs().max(), rtol=0.05, atol=0)


def test_maps_without_eigenvalues_but_zero_have_radius_zero():
    nilpotent = torch.diag(torch.ones(3, dtype=torch.float64), 1)
    for A in (nilpotent, torch.zeros(4, 4, dtype=torch.float64)):
        radius = spectral_radius(lambda z, A=A: z @ A.T, torch.zeros(2, 4, dtype=torch.float64))
        assert (radius < 1e-3).all()  # of the fourth root of rounding


def test_each_sample_has_its_own():
    radius = spectral_radius(lambda z: z**2 / 2, torch.tensor([[0.1], [0.5], [3.0]]))
    torch.testing.assert_close(radius, torch.tensor([0.1, 0.5, 3.0]))


def test_an_equilibriums_is_that_of_its_cell_at_the_fixed_point():
    torch.manual_seed(0)
    shape = (3, 2, 2)
    refinement = Equilibrium(shape, lambda s: ConvCell(s, 0.9), eval_tol=1e-12).double().eval()
    for conv in (refinement.cell.inner, refinement.cell.outer):
        conv.weight.data.mul_(10)
        conv.power_iteration(500)
    h0 = torch.randn(4, *shape, dtype=torch.float64)
    z, f = refinement(h0), refinement.cell
    expected = torch.cat([dense_radius(lambda x, h=h: f(x, h[None]), z[i : i + 1]) for i, h in enumerate(h0)])
    assert 0.05 < expected.max() < 0.9
    torch.testing.assert_close(refinement.spectral_radius(h0, z), expected, rtol=1e-6, atol=1e-8)


def test_measuring_draws_no_random_numbers_and_works_in_inference_mode_after_a_clone():
    torch.manual_seed(3)
    refinement = Equilibrium((3, 2, 2), lambda s: ConvCell(s, 0.9)).eval()
    before = torch.get_rng_state()
    with torch.inference_mode():
        h0 = torch.ones(2, 3, 2, 2)
        refinement(h0)
        solve = refinement.forward_solve
        with torch.inference_mode(False):
            assert (refinement.spectral_radius(h0.clone(), refinement.state.clone()) < 1).all()
    assert torch.equal(before, torch.get_rng_state())
    assert refinement.forward_solve is solve


def test_a_sample_that_is_not_finite_has_no_radius_and_spoils_no_other():
    scale = torch.tensor([[0.5, 0.5], [torch.nan, 0.5]])
    radius = spectral_radius(lambda z: z * scale, torch.ones(2, 2))
    assert radius[0] == pytest.approx(0.5)
    assert radius[1].isnan()
