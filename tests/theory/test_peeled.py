"""The layer-peeled programs: reductions, bounds and the ratio at which minority classifiers coincide."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deq_collapse.metrics.geometry import gram_distance, seli, simplex_etf_gram
from deq_collapse.theory.closed_forms import cross_entropy_gap
from deq_collapse.theory.critical import critical_ratio
from deq_collapse.theory.curve import curve_table
from deq_collapse.theory.loss import log_cross_entropy
from deq_collapse.theory.minimise import minimise
from deq_collapse.theory.peeled import (
    full_layer_peeled,
    layer_peeled,
    lower_bound,
    minority_cosine,
    step_counts,
    unconstrained_features,
)


@pytest.mark.parametrize("weighting", ["classes", "samples"])
@pytest.mark.parametrize("counts", [step_counts(6, 2, 20), step_counts(6, 4, 3), (50, 20, 20, 7, 3)])
def test_the_reduced_program_is_the_full_one(counts, weighting):
    reduced = layer_peeled(counts, 1.0, 3.0, weighting)
    full = full_layer_peeled(counts, 1.0, 3.0, weighting)
    assert reduced.loss == pytest.approx(full.loss, abs=1e-8)
    assert reduced.price == pytest.approx(full.price, rel=1e-4)
    for found, expected in zip(reduced[2:], full[2:], strict=True):
        assert torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(("weighting", "bias"), [("classes", False), ("samples", False), ("classes", True)])
def test_of_many_different_counts_descent_reaches_the_optimum(weighting, bias):
    counts = (90, 60, 40, 25, 15, 10)
    for energy in (3.0, 300.0):
        found = layer_peeled(counts, 1.0, energy, weighting, bias)
        assert lower_bound(found, counts, weighting) == pytest.approx(found.loss, rel=1e-3)
    if not bias:
        full = full_layer_peeled(counts, 1.0, 3.0, weighting)
        assert layer_peeled(counts, 1.0, 3.0, weighting).loss == pytest.approx(full.loss, abs=1e-8)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_balanced_classes_give_the_simplex_etf_at_the_loss_of_its_logits(num_classes):
    found = layer_peeled((7,) * num_classes, 2.0, 3.0)
    etf = simplex_etf_gram(num_classes)
    for gram in (found.weights, found.means, found.logits):
        assert gram_distance(gram, etf) < 1e-6
    gap = num_classes * 6**0.5 / (num_classes - 1)
    assert found.loss == pytest.approx(np.log1p((num_classes - 1) * np.exp(-gap)), rel=1e-7)


@settings(max_examples=10)
@given(
    st.lists(st.integers(1, 200), min_size=3, max_size=5),
    st.floats(0.2, 3),
    st.floats(0.2, 10),
    st.sampled_from(["classes", "samples"]),
)
def test_budgets_are_spent_in_full_and_logits_are_the_product(
    counts, weight_energy, feature_energy, weighting
):
    found = layer_peeled(counts, weight_energy, feature_energy, weighting)
    n = torch.tensor(counts, dtype=torch.float64)
    weights = n / n.sum() if weighting == "samples" else torch.ones_like(n) / len(n)
    assert found.weights.trace() / len(n) == pytest.approx(weight_energy, rel=1e-5)
    assert weights @ found.means.diagonal() == pytest.approx(feature_energy, rel=1e-5)
    # Rows and columns of one Gram matrix: positive semidefinite, with W H = Z.
    gram = torch.cat(
        [torch.cat([found.means, found.logits.T], 1), torch.cat([found.logits, found.weights], 1)]
    )
    assert torch.linalg.eigvalsh(gram).min() > -1e-5
    bound = lower_bound(found, counts, weighting)
    assert found.loss - 1e-5 < bound <= found.loss + 1e-12


@pytest.mark.parametrize("seed", [0, 1])
def test_no_feasible_factorisation_beats_the_optimum_and_descent_attains_it(seed):
    counts, k = step_counts(5, 2, 8), 5
    generator = torch.Generator().manual_seed(seed)
    start = [torch.randn((k, k), generator=generator, dtype=torch.float64) for _ in range(2)]

    def loss(point):
        W, H = (t * k**0.5 * energy**0.5 / t.norm() for t, energy in zip(point, (1.0, 4.0), strict=True))
        return log_cross_entropy(W @ H, counts).exp()

    best = layer_peeled(counts, 1.0, 4.0).loss
    assert float(loss(start)) > best
    assert float(loss(minimise(loss, start, 500))) == pytest.approx(best, abs=1e-8)


def test_large_budgets_lead_to_the_etf_per_class_and_to_seli_per_sample():
    counts = step_counts(6, 2, 10)
    etf, ideal = simplex_etf_gram(6), seli((10, 10, 1, 1, 1, 1))
    distances = [
        (
            float(gram_distance(layer_peeled(counts, 1, energy).weights, etf)),
            float(gram_distance(layer_peeled(counts, 1, energy, "samples").means, ideal.means)),
        )
        for energy in (10, 1e3, 1e5)
    ]
    assert distances[0] > distances[1] > distances[2]
    assert max(distances[2]) < 5e-3


def test_the_critical_ratio_divides_distinct_from_coinciding_minority_classifiers():
    critical = critical_ratio(10, 5, 1.0, 5.0)
    below, above = (
        minority_cosine(full_layer_peeled(step_counts(10, 5, critical * f), 1, 5).weights, 5)
        for f in (0.99, 1.01)
    )
    assert below < 0.97
    assert above > 0.999


def test_a_critical_ratio_is_found_up_to_the_largest():
    critical = critical_ratio(10, 3, 1.0, 20.0)
    assert critical == pytest.approx(6.36e5, rel=1e-2)
    below, above = (
        minority_cosine(layer_peeled(step_counts(10, 3, critical * f), 1, 20).weights, 3) for f in (0.9, 1.1)
    )
    assert below < 0.99 < above


def test_a_curve_without_a_critical_ratio_has_its_other_rows():
    table = curve_table(10, [3], 1.0, 200.0, 1e4, 3)
    assert critical_ratio(10, 3, 1.0, 200.0) == math.inf
    assert set(table.program) == {"reduced", "full"}


def test_the_critical_ratio_grows_with_energy_falls_with_the_majority_and_knows_only_the_product():
    by_energy = [critical_ratio(8, 4, 1.0, energy) for energy in (0.01, 1.0, 5.0)]
    assert 1 < by_energy[0] < 1.05 < by_energy[1] < by_energy[2]
    assert critical_ratio(8, 4, 2.5, 2.0) == pytest.approx(by_energy[2], rel=1e-3)
    by_majority = [critical_ratio(8, majority, 1.0, 3.0) for majority in (3, 4, 5, 6)]
    assert by_majority == sorted(by_majority, reverse=True)


def test_the_cosine_of_minority_classifiers_grows_with_the_ratio():
    cosines = [
        minority_cosine(layer_peeled(step_counts(6, 3, r), 1, 5).weights, 3) for r in (1, 2, 4, 8, 1e3)
    ]
    assert cosines[0] == pytest.approx(-1 / 5, abs=1e-6)
    assert cosines == sorted(cosines)
    assert cosines[-1] == pytest.approx(1, abs=1e-5)


def test_with_decay_minority_classifiers_coincide_exactly_from_the_threshold_on():
    counts = (500,) * 3 + (50,) * 3
    below, above = (
        minority_cosine(unconstrained_features(counts, *[(f * 50) ** 0.5 / sum(counts)] * 2).weights, 3)
        for f in (0.98, 1.02)
    )
    assert below < 0.95
    assert above == pytest.approx(1, abs=1e-4)


@settings(max_examples=15)
@given(st.integers(2, 6), st.integers(1, 500), st.floats(1e-5, 1e-1), st.floats(1e-5, 1e-1))
def test_balanced_decay_has_its_closed_form(num_classes, count, weight_decay, feature_decay):
    found = unconstrained_features((count,) * num_classes, weight_decay, feature_decay)
    gap = cross_entropy_gap(num_classes, count, weight_decay, feature_decay)
    assert found.logits[0, 0] - found.logits[1, 0] == pytest.approx(gap, abs=1e-3)
    length = (count * feature_decay / weight_decay) ** 0.5 * gap * (1 - 1 / num_classes)
    assert found.weights[0, 0] == pytest.approx(length, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("counts", "energy"),
    [((5,), 1.0), ((5, 0), 1.0), ((5, 5), 0.0), ((5, 5), float("nan")), ((5, -1, 3), 1.0)],
)
def test_what_makes_no_program_is_refused(counts, energy):
    with pytest.raises(ValueError, match="must be"):
        layer_peeled(counts, energy, 1.0)


def test_a_free_bias_loses_less_and_centres_the_features():
    counts = step_counts(5, 2, 8)
    for energy in (2.0, 200.0):
        plain, biased = layer_peeled(counts, 1.0, energy), layer_peeled(counts, 1.0, energy, bias=True)
        assert biased.loss < plain.loss
        assert biased.means.sum(0).abs().max() < 1e-3 < plain.means.sum(0).abs().max()
        logits = (biased.logits + biased.bias[:, None]).requires_grad_()
        (gradient,) = torch.autograd.grad(log_cross_entropy(logits, counts), logits)
        assert gradient.sum(1).abs().max() < 1e-5
