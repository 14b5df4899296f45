"""The cell with batch norm inside: its formula, what couples a batch, and what does not."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.models import (
    BatchNormCell,
    ConvReadout,
    Equilibrium,
    Explicit,
    Network,
    PooledEncoder,
)

SHAPE = (4, 5, 3)
SOLVED = {"solver": "fixed_point_relative", "tol": 1e-11, "eval_tol": 1e-11, "max_iter": 2000}
SOLVED |= {"eval_max_iter": 2000}


def made(make=BatchNormCell, seed: int = 0) -> BatchNormCell:
    torch.manual_seed(seed)
    return make(SHAPE).double()


def normed(x):
    return F.batch_norm(x, None, None, training=True)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_it_is_its_formula(layers):
    cell = made(partial(BatchNormCell, layers=layers, gamma=0.7))
    z, h0 = torch.randn(2, 6, *SHAPE, dtype=torch.float64)
    w = z + h0
    for layer in cell.layers:
        inner = F.leaky_relu(F.conv2d(w, layer.A.weight, layer.A.bias, padding=1), 0.1)
        w = normed(w + F.leaky_relu(F.conv2d(inner, layer.B.weight, layer.B.bias, padding=1), 0.1))
    torch.testing.assert_close(cell(z, h0), 0.7 * w)


def test_where_the_geometry_is_measured_a_sample_does_not_depend_on_its_batch_mates():
    cell = made()
    z, h0 = torch.randn(2, 6, *SHAPE, dtype=torch.float64)
    cell(z, h0)  # statistics
    cell.eval()
    alone = torch.cat([cell(s, h) for s, h in zip(z.split(1), h0.split(1), strict=True)])
    torch.testing.assert_close(cell(z, h0), alone)


def test_in_training_the_batch_is_solved_together_and_lies_in_a_ball():
    refinement = Equilibrium(SHAPE, BatchNormCell, gradient="jfb", **SOLVED).double()
    h0 = torch.randn(6, *SHAPE, dtype=torch.float64)
    z = refinement(h0)
    assert not refinement.forward_solve.missed.any()
    torch.testing.assert_close(refinement.cell(z, h0), z, rtol=0, atol=1e-9)
    assert z.square().mean((0, 2, 3)).max() <= 0.5**2  # gamma^2, by the last norm
    other = refinement(torch.cat([h0[:3], 2 * h0[3:]]))
    assert (other[:3] - z[:3]).abs().max() > 1e-3


def test_its_gradient_is_that_of_one_step_at_the_fixed_point_of_the_batch():
    refinement = Equilibrium(SHAPE, BatchNormCell, gradient="jfb", **SOLVED).double()
    h0 = torch.randn(6, *SHAPE, dtype=torch.float64, requires_grad=True)
    z = refinement(h0)
    cotangent = torch.randn_like(z)
    inputs = [h0, *refinement.parameters()]
    ours = torch.autograd.grad((z * cotangent).sum(), inputs)
    step = refinement.cell(z.detach(), h0)
    for a, b in zip(ours, torch.autograd.grad((step * cotangent).sum(), inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7 * max(1, float(b.abs().max())))


def test_every_evaluation_of_a_solver_moves_the_running_statistics():
    refinement = Equilibrium(SHAPE, BatchNormCell, gradient="jfb", **SOLVED).double()
    refinement(torch.randn(6, *SHAPE, dtype=torch.float64))
    (tracked,) = {int(layer.norm.num_batches_tracked) for layer in refinement.cell.layers}
    assert tracked >= refinement.forward_solve.evaluations
    before = [layer.norm.running_mean.clone() for layer in refinement.cell.layers]
    refinement.eval()(torch.randn(6, *SHAPE, dtype=torch.float64))
    for layer, mean in zip(refinement.cell.layers, before, strict=True):
        assert torch.equal(layer.norm.running_mean, mean)


def test_an_explicit_stack_starts_from_zero():
    explicit = Explicit(SHAPE, BatchNormCell).double()
    h0 = torch.randn(6, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(explicit(h0), explicit.blocks[0](torch.zeros_like(h0), h0))


def test_the_network_of_the_publication_has_54_thousand_parameters():
    network = Network(
        (1, 28, 28),
        10,
        PooledEncoder,
        partial(Equilibrium, cell=BatchNormCell),
        ConvReadout(32),
        partial(nn.Linear, bias=False),
    )
    assert network.parameter_counts()["total"] == 54_352
    assert network.num_features == 16 * 7 * 7
    assert network.encoder(torch.zeros(2, 1, 28, 28)).shape == (2, 32, 9, 9)


def test_a_dropped_channel_is_dropped_whole_and_in_training_alone():
    torch.manual_seed(0)
    readout, z = ConvReadout(2, width=50, dropout=0.5), torch.randn(1, 2, 6, 5)
    kept = (readout(z).view(50, 12) != 0).all(1)
    dropped = (readout(z).view(50, 12) == 0).all(1)
    assert 0 < kept.sum() < 50
    assert 0 < dropped.sum() < 50
    assert (readout.eval()(z) != 0).all()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: BatchNormCell((4,)), "maps"),
        (lambda: BatchNormCell(SHAPE, layers=0), "at least 1"),
        (lambda: BatchNormCell(SHAPE, gamma=0), "above 0"),
        (lambda: BatchNormCell(SHAPE, inner_width=0), "at least 1"),
        (lambda: PooledEncoder((1, 28, 28), widths=()), "at least one"),
        (lambda: PooledEncoder((1, 28, 28), pool=29), "28 pixels"),
        (lambda: ConvReadout(0), "at least 1"),
        (lambda: ConvReadout(2, dropout=1), "below 1"),
    ],
)
def test_impossible_arguments_are_refused(make, told):
    with pytest.raises(UserError, match=told):
        make()
