"""Descent on unconstrained-feature models ends at the closed forms."""

import pytest
import torch

from deq_collapse.metrics.geometry import gof, gram_distance, seli, simplex_etf_gram
from deq_collapse.theory.closed_forms import cross_entropy_gap, linear_network
from deq_collapse.theory.descent import Model, cross_entropy, descend, squared_error, squared_hinge
from deq_collapse.theory.peeled import unconstrained_features

STEP = (60, 60, 6, 6, 6)


def end_of(model, dim, rate, steps, momentum=0.9):
    return list(descend(model, dim, rate, steps, momentum).values())[-1]


def distances(point, target):
    return max(float(gram_distance(a, b)) for a, b in zip(point, target, strict=True))


@pytest.mark.parametrize("dim", [5, 8])
def test_balanced_cross_entropy_reaches_the_simplex_etf_and_its_size(dim):
    point = end_of(Model((40,) * 5, (5e-3,), 1e-4, cross_entropy), dim, 10, 700)
    assert distances(point, [simplex_etf_gram(5)] * 3) < 1e-3
    gap = cross_entropy_gap(5, 40, 5e-3, 1e-4)
    assert point.logits[0, 0] - point.logits[1, 0] == pytest.approx(gap, rel=1e-5)


def test_balanced_squared_error_with_a_bias_reaches_the_simplex_etf():
    point = end_of(Model((40,) * 5, (1e-3,), 1e-3, squared_error, bias=True), 6, 1, 800)
    assert distances(point, [simplex_etf_gram(5)] * 3) < 1e-3


def test_balanced_squared_error_without_a_bias_reaches_an_orthogonal_frame():
    point = end_of(Model((40,) * 5, (1e-3,), 1e-3, squared_error), 6, 1, 700)
    assert distances(point, [torch.eye(5)] * 3) < 1e-3


def test_imbalanced_squared_error_reaches_gof_and_its_lengths():
    point = end_of(Model(STEP, (2e-3,), 1e-3, squared_error), 6, 3, 500)
    assert distances(point, gof(STEP, 2e-3, 1e-3)) < 1e-3
    found = linear_network(STEP, (2e-3,), 1e-3)
    lengths = [max(0.0, (n * 1e-3 / 2e-3) ** 0.5 - sum(STEP) * 1e-3) for n in STEP]
    assert torch.allclose(found.weights, torch.tensor(lengths, dtype=torch.float64))
    assert torch.allclose(point.weights.diagonal(), found.weights, atol=1e-5)
    assert torch.allclose(point.means.diagonal(), found.means, atol=1e-5)


def test_a_class_vanishes_at_its_threshold_and_not_before():
    total = sum(STEP)
    for factor, survives in ((0.99, True), (1.01, False)):
        decay = (factor * 6) ** 0.5 / total
        assert bool(linear_network(STEP, (decay,), decay).logits[-1] > 0) is survives
        assert linear_network(STEP, (decay,), decay).logits[0] > 0


@pytest.mark.parametrize("layers", [2, 3])
def test_deep_linear_networks_reach_their_frame(layers):
    found = linear_network(STEP, (3e-3,) * layers, 1e-3)
    point = end_of(Model(STEP, (3e-3,) * layers, 1e-3, squared_error), 6, 0.5, 800)
    assert distances(point, found.geometry) < 1e-3
    assert torch.allclose(point.logits.diagonal(), found.logits, atol=1e-4)


def test_a_class_of_a_deep_network_vanishes_where_zero_costs_less():
    # Of three factors each class costs (s - sqrt(n))^2 / (2N) + (3/2) q s^(2/3): the least over a fine grid.
    s = torch.linspace(0, 8, 80_001, dtype=torch.float64)
    for decay in (0.01, 0.02, 0.03, 0.05, 0.08):
        q = decay ** (3 / 3)
        n = torch.tensor(STEP, dtype=torch.float64)[:, None]
        cost = (s - n.sqrt()).square() / (2 * sum(STEP)) + 1.5 * q * s ** (2 / 3)
        expected = s[cost.argmin(1)] / n.squeeze(1).sqrt()
        found = linear_network(STEP, (decay, decay), decay).logits
        assert torch.allclose(found, expected, atol=1e-3)


def test_maximal_margins_are_seli():
    point = end_of(Model(STEP, (1e-4,), 1e-4, squared_hinge), 5, 1, 2500, 0.97)
    assert distances(point, seli(STEP)) < 1e-3


def test_imbalanced_cross_entropy_reaches_the_convex_optimum():
    point = end_of(Model(STEP, (5e-3,), 1e-3, cross_entropy), 6, 10, 700)
    found = unconstrained_features(STEP, 5e-3, 1e-3)
    assert distances(point, (found.weights, found.means, found.logits)) < 1e-3
    assert torch.allclose(point.weights, found.weights, atol=1e-3)


@pytest.mark.parametrize("arguments", [((5,), (1e-3,), 1e-3), ((5, 5), (), 1e-3), ((5, 5), (1e-3,), 0.0)])
def test_what_has_no_optimum_is_refused(arguments):
    with pytest.raises(ValueError, match=r"at least|must be"):
        linear_network(*arguments)
