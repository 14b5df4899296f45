"""Defects found in public tools for neural collapse: one test each for being right where they are wrong."""

import math

import numpy as np
import pytest
import torch

from deq_collapse.metrics import ClassStatistics, NeuralCollapse, functional


def test_nc4_counts_the_bias(make, measure):
    features, labels = make([50, 50, 50], 8, 0.05, offset=3.0)
    means = torch.stack([features[labels == c].mean(0) for c in range(3)])
    # The nearest-mean rule written as a linear classifier needs its bias.
    bias = -0.5 * means.square().sum(1)
    assert measure(features, labels, means, bias)["nc4"] == 0
    assert measure(features, labels, means, torch.zeros(3))["nc4"] > 0.3


def test_an_empty_class_takes_no_part_and_is_counted(make, measure):
    features, labels = make([30, 30, 30], 8, 0.3)
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).double()
    dense = measure(features, labels, weight[[0, 1, 3]], torch.zeros(3))
    sparse = measure(features, torch.tensor([0, 1, 3])[labels], weight, torch.zeros(4))
    assert sparse.pop("absent_classes") == 1
    for name in set(sparse) - {"nc0", "nc2_norm_weights", "nc2_angle_weights", "nc2_etf_weights", "nc4"}:
        assert sparse[name] == pytest.approx(dense[name], rel=1e-9, abs=1e-9), name


def test_nc1_with_one_class_far_tighter_than_another(make, measure, reference):
    features, labels = make([40, 40, 40], 8, 1.0)
    means = torch.stack([features[labels == c].mean(0) for c in range(3)])
    spread = torch.tensor([1e-4, 1.0, 1.0]).double()[labels][:, None]
    features = means[labels] + spread * (features - means[labels])
    expected = reference(features, labels, means, torch.zeros(3), 3)["nc1"]
    assert measure(features, labels)["nc1"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("width", [1, 3, 5])
def test_nc1_with_more_classes_than_width(make, measure, width):
    features, labels = make([20] * 12, width, 0.5)
    means = torch.stack([features[labels == c].mean(0) for c in range(12)])
    M, r = means - means.mean(0), features - means[labels]
    expected = torch.trace(r.T @ r / len(r) @ torch.linalg.inv(M.T @ M / 12)) / 12
    values = measure(features, labels)
    assert values["nc1"] == pytest.approx(float(expected), rel=1e-9)
    assert values["between_rank"] == width


def test_coincident_means_stay_finite_and_are_counted(measure):
    h = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 2.0, 0]])[torch.tensor([0, 1, 0, 1, 2, 2])]
    h = h + torch.tensor([1.0, 1, -1, -1, 1, -1])[:, None] * torch.tensor([0, 0, 0.1])
    values = measure(torch.cat([h, h[:4]]), torch.tensor([0, 1, 0, 1, 2, 2, 3, 1, 3, 1]), classes=4)
    assert values["coincident_pairs"] == 1
    assert values["between_rank"] == 2
    assert all(math.isfinite(value) for value in values.values())


def test_when_all_means_coincide_within_class_values_are_infinite(measure):
    h = torch.tensor([[1.0, 0], [-1.0, 0]]).repeat(3, 1)
    values = measure(h, torch.arange(3).repeat_interleave(2), torch.zeros(3, 2), torch.zeros(3))
    assert values["nc1"] == values["nc1_trace_ratio"] == values["cdnv"] == math.inf
    assert values["coincident_pairs"] == 3
    assert not any(math.isnan(value) for value in values.values())


@pytest.mark.parametrize("offset", [0, 20, 1000])
def test_nearest_means_are_found_far_from_the_origin(make, measure, offset):
    features, labels = make([50] * 10, 16, 0.2, offset=offset)
    features = features.float()
    h, y = features.double(), labels
    means = torch.stack([h[y == c].mean(0) for c in range(10)])
    exact = torch.cdist(h, means, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    found = functional.nearest_mean(ClassStatistics.from_features(features, labels, 10), features, labels)
    assert torch.equal(found, exact)


def test_nearest_means_are_found_among_means_that_almost_coincide():
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(8, generator=generator)
    means = torch.cat([10 * torch.randn(4, 8, generator=generator), centre + 1e-3 * torch.eye(8)[:4]])
    labels = torch.arange(8).repeat(50)
    features = means[labels] + 2e-4 * torch.randn(400, 8, generator=generator)
    stats = ClassStatistics.from_features(features, labels, 8)
    exact = torch.cdist(features.double(), stats.means, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    assert torch.equal(functional.nearest_mean(stats, features, labels), exact)


@pytest.mark.parametrize("spread", [False, True])
def test_samples_on_either_side_of_half_the_way_to_another_mean(spread):
    # Those within it need no product, those beyond do; both must find what plain distances find.
    means = torch.tensor([[0.0, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0], [0, 9, 0, 0, 0, 0, 0, 0]]) + 7
    steps = torch.linspace(-3, 3, 301)[:, None, None] * torch.eye(8)
    offsets = torch.cat([steps.flatten(0, 1), -steps.flatten(0, 1)])
    labels = torch.arange(3).repeat_interleave(len(offsets))
    features = means[labels] + offsets.repeat(3, 1)
    stats = ClassStatistics.from_features(features, labels, 4)
    exact = torch.cdist(features.double(), stats.means[:3], compute_mode="donot_use_mm_for_euclid_dist")
    decided = torch.zeros_like(labels)
    tally = functional.tally_samples(stats, [features], [labels], [decided], spread)
    clear = exact.sort(dim=1).values.diff(dim=1)[:, 0] > 1e-5
    found = functional.nearest_mean(stats, features, labels)
    assert torch.equal(found[clear], exact.argmin(1)[clear])
    assert abs(float(tally[1].sum()) - int((exact.argmin(1) != 0).sum())) <= int((~clear).sum())


def test_null_directions_of_sigma_b_carry_no_weight(make, measure, reference):
    features, labels = make([50] * 3, 64, 1e-3)
    features[:, -1] += 5 * torch.randn(150, generator=torch.Generator().manual_seed(0)).double()
    features = features.float()
    expected = reference(features, labels, torch.zeros(3, 64) + 1, torch.zeros(3), 3)["nc1"]
    assert measure(features, labels)["nc1"] == pytest.approx(expected, rel=1e-6)
    assert expected > 0


def test_balanced_and_sample_weighted_centres_are_both_there_and_differ(make, measure):
    features, labels = make([200, 20, 5], 8, 0.01)
    means = torch.stack([features[labels == c].mean(0) for c in range(3)])
    for centre, mean in (("classes", means.mean(0)), ("samples", features.mean(0))):
        M = means - mean
        gram = M @ M.T
        etf = (torch.eye(3).double() - 1 / 3) / math.sqrt(2)
        found = measure(features, labels, centre=centre)["nc2_etf_means"]
        assert found == pytest.approx(float((gram / gram.norm() - etf).norm()), rel=1e-9)


def test_both_forms_of_nc3_are_named_and_differ(make, measure):
    features, labels = make([30] * 4, 8, 0.1)
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).double()
    values = measure(features, labels, weight, torch.zeros(4))
    assert abs(values["nc3"] - values["nc3_product"]) > 0.1


def test_nc1_is_divided_by_the_number_of_classes():
    features = torch.tensor([[1.0, 1], [3, 1], [-1, -1], [-3, -1]])
    stats = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    # means (2, 1), (-2, -1); Sigma_B along (2, 1)/sqrt 5 is 5; Sigma_W there is 4/5 of 1.
    assert float(functional.nc1(stats)) == pytest.approx(0.8 / 5 / 2)


@pytest.mark.parametrize("K", [3, 5, 8])
def test_generalised_margins_where_no_simplex_fits(K):
    angles = torch.arange(K) * 2 * math.pi / K
    code = torch.stack([angles.cos(), angles.sin()], 1)
    expected = 1 - math.cos(2 * math.pi / K) if K > 3 else 1.5
    np.testing.assert_allclose(functional.one_vs_rest_margins(code), expected, rtol=1e-6)
    etf = torch.eye(K) - 1 / K
    np.testing.assert_allclose(functional.one_vs_rest_margins(etf), K / (K - 1), rtol=1e-6)


def test_a_row_inside_the_hull_of_others_has_no_margin():
    rows = torch.tensor([[1.0, 0], [0.0, 1], [1, 0]])
    assert functional.one_vs_rest_margins(rows)[[0, 2]].max() < 1e-7


def test_update_reads_no_value_back_from_the_device():
    """On the meta device any question about a value raises, as a GPU would have to be waited for."""
    metric = NeuralCollapse(5, 8)
    metric.to("meta")
    for _ in range(3):
        h, y = torch.empty(700, 8, device="meta"), torch.empty(700, dtype=torch.int64, device="meta")
        metric.update(h, y, torch.empty(5, 8, device="meta"), torch.empty(5, device="meta"))
    assert sum(map(len, metric.buffered_features)) == 2100
