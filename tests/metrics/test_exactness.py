"""One pass in float32 gives the values of two passes in float64."""

import pytest
import torch

from deq_collapse.metrics import ClassStatistics, NeuralCollapse, functional

COUNTS = [60, 40, 90, 25, 70]
WIDTH = 16
SPREAD = ["nc1", "nc1_trace_ratio", "cdnv"]


# With nc4, NC1 comes from the samples that are kept for it; without, from the scatter matrix.
@pytest.mark.parametrize("metrics", [SPREAD, [*SPREAD, "nc4"]], ids=["scatter", "samples"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("noise", [10.0, 1.0, 1e-2, 1e-3, 1e-4])
def test_within_class_values_match_two_passes(make, measure, reference, noise, norm, dtype, metrics):
    features, labels = make(COUNTS, WIDTH, noise, norm)
    features = features.to(dtype)
    weight, bias = torch.randn(5, WIDTH), torch.zeros(5)
    expected = reference(features, labels, weight, bias, 5)
    values = measure(features, labels, metrics=metrics)
    for name in SPREAD:
        assert values[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-20), name


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6])
def test_means_that_nearly_lie_in_few_dimensions(reference, measure, spread, offset):
    # Minority collapse: some means differ far less than others, and NC1 divides by the small differences.
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat(200)
    means = torch.randn(6, 32, generator=generator, dtype=torch.float64)
    means[3:] = means[3] + spread * (means[3:] - means[3])
    features = means[labels] + 1e-2 * torch.randn(1200, 32, generator=generator, dtype=torch.float64) + offset
    features = features.float()
    expected = reference(features, labels, torch.eye(32)[:6], torch.zeros(6), 6)["nc1"]
    for metrics in (["nc1"], ["nc1", "nc4"]):
        assert measure(features, labels, metrics=metrics)["nc1"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "metrics", [["nc1", "between_rank", "coincident_pairs"], None], ids=["scatter", "all"]
)
@pytest.mark.parametrize("apart", [1.0, 1e-4, 1e-6, 3e-7, 1e-7, 1e-9])
def test_nc1_as_two_class_means_approach_each_other(measure, apart, metrics):
    # Two of ten means differ by `apart` along an axis of their own: Sigma_B splits in two.
    K, d = 10, 32
    axes, generator = torch.eye(d, dtype=torch.float64), torch.Generator().manual_seed(0)
    means = axes[[1, *range(1, K)]]
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    noise = apart * torch.randn(4, d, generator=generator, dtype=torch.float64)
    noise = torch.cat([noise, -noise])  # of mean 0
    features = means[:, None] + noise
    features[0] += apart / 2 * axes[0]
    features[1] -= apart / 2 * axes[0]
    centred = means - means.mean(0)
    between = torch.linalg.pinv(centred.T @ centred, rtol=1e-9) + 2 / apart**2 * axes[0].outer(axes[0])
    expected = float((noise.T @ noise / 8 * between).sum())
    rotated = (features @ rotation).flatten(0, 1)
    values = measure(rotated, torch.arange(K).repeat_interleave(8), metrics=metrics)
    assert values["nc1"] == pytest.approx(expected, rel=max(1e-6, 1e-15 / apart))
    assert values["between_rank"] == K - 1
    assert values["coincident_pairs"] == 0


@pytest.mark.parametrize("apart", [1e-16, 0.0])
def test_means_that_float64_cannot_tell_apart_span_no_direction(measure, apart):
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(10, 32, generator=generator, dtype=torch.float64)
    means[0] = means[1] + apart
    noise = torch.randn(4, 32, generator=generator, dtype=torch.float64)
    features = (means[:, None] + torch.cat([noise, -noise])).flatten(0, 1)
    values = measure(features, torch.arange(10).repeat_interleave(8))
    assert (values["coincident_pairs"], values["between_rank"]) == (1, 8)
    assert values["nc1"] < 100


@pytest.mark.parametrize("width", [WIDTH, 8])
def test_classes_that_weigh_the_same(make, measure, width):
    features, labels = make(COUNTS, width, 0.1)
    means = torch.stack([features[labels == c].mean(0) for c in range(5)])
    centred = means - means.mean(0)
    between = torch.linalg.pinv(centred.T @ centred / 5, rtol=1e-9)
    scatters = [torch.cov(features[labels == c].T, correction=0) for c in range(5)]
    values = measure(features, labels, weighting="classes")
    assert values["nc1"] == pytest.approx(float((sum(scatters) / 5 * between).sum() / 5), rel=1e-9)
    traces = torch.stack([scatter.trace() for scatter in scatters])
    expected = traces.mean() / centred.square().sum(1).mean()
    assert values["nc1_trace_ratio"] == pytest.approx(float(expected), rel=1e-9)
    stats = ClassStatistics.from_features(features, labels, 5, weighting="classes")
    assert float(functional.nc1(stats)) == pytest.approx(values["nc1"], rel=1e-9)
    metric = NeuralCollapse(5, width, ["nc1", "vci"], weighting="classes")
    metric.update(features, labels)
    assert metric.compute()["nc1"] == pytest.approx(values["nc1"], rel=1e-9)
    with pytest.raises(ValueError, match="made without"):  # its sums are those of equal samples
        functional.nc1(metric.statistics())
    balanced, same = make([40] * 5, width, 0.1)
    assert measure(balanced, same, weighting="classes") == pytest.approx(measure(balanced, same), rel=1e-9)


# Wide features give NC1 from the samples, narrow ones from the scatter matrix.
@pytest.mark.parametrize("width", [WIDTH, 8])
def test_nc1_per_class_is_that_of_the_class_alone_and_adds_up(make, width):
    features, labels = make(COUNTS, width, 0.1)
    metric = NeuralCollapse(5, width, metrics=["nc1", "nc4"])
    metric.update(features, labels)
    centred = ClassStatistics.from_features(features, labels, 5).centred
    between = torch.linalg.pinv(centred.T @ centred / 5, rtol=1e-9)
    for c, value in enumerate(metric.class_values()["nc1"]):
        covariance = torch.cov(features[labels == c].T, correction=0)
        assert float(value) == pytest.approx(float((covariance * between).sum() / 5), rel=1e-9)
    pooled = torch.tensor(COUNTS).double() @ metric.class_values()["nc1"] / sum(COUNTS)
    assert float(pooled) == pytest.approx(float(metric.compute()["nc1"]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("noise", [1.0, 1e-4])
def test_every_value_matches_two_passes(make, measure, reference, noise, dtype):
    features, labels = make(COUNTS, WIDTH, noise)
    features = features.to(dtype)
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(5, WIDTH, generator=generator, dtype=torch.float64)
    bias = torch.randn(5, generator=generator, dtype=torch.float64)
    expected = reference(features, labels, weight, bias, 5)
    values = measure(features, labels, weight, bias, majority=[0, 1])
    for name, value in expected.items():
        within = name.startswith(("nc1", "cdnv")) and dtype != torch.float64
        assert values[name] == pytest.approx(value, rel=1e-6 if within else 0, abs=1e-9), name


@pytest.mark.parametrize("batch", [1, 7, 2000])
def test_a_first_sample_far_from_its_class_costs_no_precision(reference, measure, batch):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(1000)
    means = torch.eye(8)[:4]
    features = means[labels] + 1e-3 * torch.randn(4000, 8, generator=generator)
    features[:4] += torch.randn(4, 8, generator=generator)
    expected = reference(features, labels, torch.eye(8)[:4], torch.zeros(4), 4)
    values = measure(features, labels, metrics=["nc1", "cdnv"], batch=batch)
    assert values["nc1"] == pytest.approx(expected["nc1"], rel=1e-6)
    assert values["cdnv"] == pytest.approx(expected["cdnv"], rel=1e-6)


@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.parametrize("size", [10.0, 1000.0])
@pytest.mark.parametrize(("K", "d"), [(4, 16), (12, 16)])
def test_a_class_that_opens_late_with_an_outlier_costs_no_precision(reference, measure, K, d, size, batch):
    # When the last class opens, the others have long had their samples: nothing of the batch says it is new.
    # The outlier is orthogonal to all means: NC1 has no part of it but what a far pivot would round.
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    means = torch.randn(K, d, generator=generator, dtype=torch.float64)
    means[:, 12:] = 0
    early, late = torch.arange(2000) % (K - 1), torch.arange(2000) % K
    labels = torch.cat([early, torch.tensor([K - 1]), late])
    features = means[labels] + 0.1 * torch.randn(len(labels), d, generator=generator, dtype=torch.float64)
    features[len(early), 12:] += 0.1 * size * torch.randn(d - 12, generator=generator, dtype=torch.float64)
    features = (features @ rotation).float()
    expected = reference(features, labels, torch.eye(d)[:K], torch.zeros(K), K)
    values = measure(features, labels, metrics=["nc1", "cdnv"], batch=batch)
    assert values["nc1"] == pytest.approx(expected["nc1"], rel=1e-6)
    assert values["cdnv"] == pytest.approx(expected["cdnv"], rel=1e-6)


def test_samples_sorted_by_class_and_drifting_cost_no_precision(reference, measure):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(500)
    drift = torch.linspace(-3, 3, 2000)[:, None]
    features = 100 * torch.eye(8)[labels] + drift + 1e-2 * torch.randn(2000, 8, generator=generator)
    expected = reference(features, labels, torch.eye(8)[:4], torch.zeros(4), 4)
    values = measure(features, labels, metrics=["nc1", "cdnv"], batch=16)
    assert values["nc1"] == pytest.approx(expected["nc1"], rel=1e-6)
    assert values["cdnv"] == pytest.approx(expected["cdnv"], rel=1e-6)


@pytest.mark.parametrize("precision", ["medium", "high"])
def test_autocast_and_fast_matmuls_leave_the_values_alone(make, measure, precision):
    features, labels = make(COUNTS, WIDTH, 1e-2)
    features, weight = features.float(), torch.randn(5, WIDTH)
    plain = measure(features, labels, weight)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fast = measure(features, labels, weight)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert fast == plain


def test_test_features_around_train_means(make):
    train, y_train = make(COUNTS, WIDTH, 0.3, seed=1)
    test, y_test = make(COUNTS, WIDTH, 0.3, seed=2)
    means = ClassStatistics.from_features(train, y_train, 5).means
    around = ClassStatistics.from_features(test, y_test, 5).around(means)
    residuals = test - means[y_test]
    torch.testing.assert_close(around.within, residuals.T @ residuals / len(test))
    spread = torch.stack([residuals[y_test == c].square().sum(1).mean() for c in range(5)])
    torch.testing.assert_close(around.variances, spread)
    assert functional.nc1(around) > functional.nc1(ClassStatistics.from_features(test, y_test, 5))


def test_samples_of_a_class_that_training_never_saw_are_refused_around_its_means(make):
    train, y_train = make(COUNTS, WIDTH, 0.3, seed=1)
    test, y_test = make(COUNTS, WIDTH, 0.3, seed=1)
    some = y_train != 2
    known = ClassStatistics.from_features(train[some], y_train[some], 5)
    stats = ClassStatistics.from_features(test, y_test, 5)
    for means in (known, known.means):
        with pytest.raises(ValueError, match=r"classes \[2\] have no mean"):
            stats.around(means)
    seen = known.present[y_test]
    around = ClassStatistics.from_features(test[seen], y_test[seen], 5).around(known)
    four = torch.tensor([0, 1, 0, 2, 3])
    packed = ClassStatistics.from_features(train[some], four[y_train[some]], 4)
    torch.testing.assert_close(functional.nc1(around), functional.nc1(packed))
    assert functional.nc1(around) < 0.1


def test_a_mean_that_is_truly_zero_is_one():
    features = torch.tensor([[1.0, 1], [-1, -1], [3, 0], [5, 0]])
    stats = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    torch.testing.assert_close(stats.around(stats).variances, stats.variances)


def test_statistics_stay_what_they_were(make):
    features, labels = make(COUNTS, WIDTH, 0.3)
    metric = NeuralCollapse(5, WIDTH, metrics=["nc1"])
    metric.update(features[:100], labels[:100])
    stats = metric.statistics()
    before = functional.nc1(stats), functional.cdnv(stats)
    metric.update(features[100:], labels[100:])
    assert (functional.nc1(stats), functional.cdnv(stats)) == before
    torch.testing.assert_close(
        stats.within, ClassStatistics.from_features(features[:100], labels[:100], 5).within
    )
