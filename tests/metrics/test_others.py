"""What others measure, against code that follows their definitions one term at a time."""

import math

import numpy as np
import pytest
import torch

from deq_collapse.metrics import ClassStatistics, LayerwiseCollapse, NeuralCollapse, functional, known

COUNTS = [60, 25, 90, 8, 40]
K = len(COUNTS)
NAMES = [
    "gnc2_means",
    "gnc2_weights",
    "unc3",
    "cdnv_directional",
    "separation_fuzziness",
    "vci",
    "effective_rank_means",
    "effective_rank_features",
]


def solved(A, B):
    """A^-1 B by elimination with pivots, in the precision of A, which NumPy's own is not."""
    system = np.concatenate([A, B], axis=1)
    for i in range(len(A)):
        pivot = i + int(np.abs(system[i:, i]).argmax())
        system[[i, pivot]] = system[[pivot, i]]
        system[i] /= system[i, i]
        for j in set(range(len(A))) - {i}:
            system[j] -= system[j, i] * system[i]
    return system[:, len(A) :]


def by_definition(features, labels, weight):
    h, y, W = features.double().numpy(), labels.numpy(), weight.double().numpy()
    N, d = h.shape
    means = np.stack([h[y == c].mean(0) for c in range(K)])
    M, centre = means - means.mean(0), h.mean(0)
    within, between = np.zeros((d, d)), np.zeros((d, d))
    for x, c in zip(h, y, strict=True):
        within += np.outer(x - means[c], x - means[c]) / N
        between += np.outer(means[c] - centre, means[c] - centre) / N

    def kernels(rows):
        u = [row / np.linalg.norm(row) for row in rows]
        return [math.log(1 / np.linalg.norm(u[a] - u[b])) for a in range(K) for b in range(a)]

    def variation(values):
        return np.std(values) / abs(np.mean(values))

    def entropy_rank(matrix):
        s = np.linalg.svd(matrix, compute_uv=False)
        p = s[s > 1e-12 * s[0]] / s.sum()
        return math.exp(-sum(q * math.log(q) for q in p))

    directional = []
    for a in range(K):
        for b in range(K):
            if a != b:
                line = means[b] - means[a]
                along = [(x - means[a]) @ line / np.linalg.norm(line) for x in h[y == a]]
                directional.append(np.mean(np.square(along)) / (line @ line))
    # The inverse of a matrix of condition 1e8 needs more digits than it gives.
    long = np.stack([h[y == c].astype(np.longdouble).mean(0) for c in range(K)])
    apart = long[y] - h.astype(np.longdouble).mean(0)
    scatter = (h - long[y]).T @ (h - long[y]) / N
    inside = apart.T @ apart / N
    rank = min(K - 1, d)
    inverse = np.linalg.pinv(between, rcond=1e-10, hermitian=True)
    return {
        "gnc2_means": variation(kernels(M)),
        "gnc2_weights": variation(kernels(W)),
        "unc3": variation([w @ m / np.linalg.norm(w) / np.linalg.norm(m) for w, m in zip(W, M, strict=True)]),
        "cdnv_directional": np.mean(directional),
        "separation_fuzziness": np.trace(within @ inverse),
        "vci": float(1 - np.trace(solved(scatter + inside, inside)) / rank),
        "effective_rank_means": entropy_rank(M),
        "effective_rank_features": entropy_rank(h - centre),
    }


@pytest.mark.parametrize("options", [{}, {"weighting": "classes"}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("noise", [1.0, 1e-3])
@pytest.mark.parametrize("width", [3, 8, 32])
def test_values_are_those_of_their_definitions(make, measure, width, noise, dtype, options):
    features, labels = make(COUNTS, width, noise, offset=0.5, seed=width)
    features = features.to(dtype)
    weight = torch.randn(K, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = measure(features, labels, weight, metrics=[*NAMES, "nc1", "nc4"], **options)
    for name, value in by_definition(features, labels, weight).items():
        # VCI is 1 less a number near 1.
        assert found[name] == pytest.approx(value, rel=2e-6, abs=1e-12), name
    assert "nc4" in found


def test_balanced_fuzziness_is_nc1_times_k(make, measure):
    features, labels = make([40] * 6, 16, 0.3)
    found = measure(features, labels, metrics=["separation_fuzziness", "nc1", "cdnv", "cdnv_directional"])
    assert found["separation_fuzziness"] == pytest.approx(6 * found["nc1"])
    assert found["cdnv_directional"] < found["cdnv"]


def test_vci_is_invariant_under_linear_maps_and_features_of_one_direction_have_rank_one(make, measure):
    features, labels = make(COUNTS, 6, 0.5)
    linear = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (before, after) = (measure(h, labels, metrics=["vci"])["vci"] for h in (features, features @ linear))
    assert after == pytest.approx(before)
    line = features[:, :1] * linear[:1]
    found = measure(line, labels, metrics=["effective_rank_means", "effective_rank_features"])
    assert found["effective_rank_means"] == pytest.approx(1)
    assert found["effective_rank_features"] == pytest.approx(1, abs=1e-5)


def test_means_that_all_coincide(measure):
    h = torch.tensor([[1.0, 0], [-1.0, 0]]).repeat(3, 1)
    found = measure(h, torch.arange(3).repeat_interleave(2), torch.zeros(3, 2), metrics=NAMES)
    assert found["separation_fuzziness"] == found["cdnv_directional"] == math.inf
    assert found["vci"] == 1
    assert found["effective_rank_means"] == 0
    assert not any(math.isnan(value) for value in found.values())


def test_collapsed_classes_have_no_variability_however_close_their_means(measure):
    means = torch.tensor([[0.0, 0, 0], [10, 0, 0], [10, 1e-7, 0]], dtype=torch.float64)
    found = measure(means.repeat(4, 1), torch.arange(12) % 3, metrics=["vci", "between_rank"])
    assert found == {"vci": pytest.approx(0, abs=1e-12), "between_rank": 2}


def test_a_law_of_separation_is_found_where_it_holds():
    depth = torch.arange(6)
    law = functional.separation_law(3.0 * 0.4**depth)
    assert float(law.rate) == pytest.approx(0.4)
    assert float(law.correlation) == pytest.approx(-1)
    noisy = torch.tensor([5.0, 4.0, 4.5, 1.0])
    slope, _ = np.polyfit(range(4), np.log(noisy.numpy()), 1)
    law = functional.separation_law(noisy)
    assert float(law.rate) == pytest.approx(math.exp(slope))
    assert float(law.correlation) == pytest.approx(np.corrcoef(range(4), np.log(noisy.numpy()))[0, 1])
    for values in ([1.0], [1.0, 0.0], [1.0, math.inf]):
        with pytest.raises(ValueError, match="two depths or more"):
            functional.separation_law(torch.tensor(values))


def test_fuzziness_falls_by_the_law_along_layers_that_contract_within_classes(make):
    features, labels = make([30] * 4, 8, 0.5)
    means = ClassStatistics.from_features(features, labels, 4).means[labels]

    class Contract(torch.nn.Module):
        def forward(self, h):
            return means + 0.5 * (h - means)

    model = torch.nn.Sequential(*(Contract() for _ in range(4)))
    with LayerwiseCollapse(model, ["0", "1", "2", "3"], 4, ["separation_fuzziness"]) as layers:
        model(features)
        layers.update(labels)
    values = torch.stack([point.values["separation_fuzziness"] for point in layers.compute()])
    assert float(functional.separation_law(values).rate) == pytest.approx(0.25)


def test_a_second_pass_gives_nc4_without_keeping_samples(make, measure):
    features, labels = make(COUNTS, 8, 1.0)
    weight = torch.randn(K, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bias = torch.randn(K, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    metric = NeuralCollapse(K, 8, ["nc1", "nc4_fixed"], nonfinite="skip")
    spoilt = torch.cat([features, torch.full((1, 8), math.nan, dtype=torch.float64)])
    for _ in range(2):
        metric.reset()
        for h, y in zip(spoilt.split(50), torch.cat([labels, labels[:1]]).split(50), strict=True):
            metric.update(h, y, weight, bias)
        assert ("nc4_fixed" in metric.compute()) == bool(metric._fixed)
        if metric._fixed is None:
            assert metric.left_out() == {"nc4_fixed": known.LACKS["fixed"]}
        metric.fix_means()
    # The means of the first pass are those of the second: the value is exact.
    metric.reset()
    metric.update(features, labels, weight, bias)
    values = metric.compute()
    assert float(values["nc4_fixed"]) == measure(features, labels, weight, bias)["nc4"]
    assert not hasattr(metric, "buffered_features")


def test_fixing_the_means_of_a_pass_spoils_none_of_its_values(make):
    features, labels = make(COUNTS, 8, 0.5)
    metric = NeuralCollapse(K, 8, ["nc1", "nc4_fixed"])
    metric.update(features, labels, torch.randn(K, 8))
    metric.fix_means()
    assert set(metric.compute()) == {"nc1"}
    assert set(metric.left_out()) == {"nc4_fixed"}


def test_samples_of_a_class_without_a_fixed_mean_are_compared_with_the_others(make):
    features, labels = make(COUNTS, 8, 1.0)
    known = labels != 0
    stats = ClassStatistics.from_features(features[known], labels[known], K)
    metric = NeuralCollapse(K, 8, ["nc4_fixed"])
    metric.fix_means(stats)
    weight = torch.randn(K, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    metric.update(features, labels, weight)
    nearest = torch.cdist(features, stats.means[1:]).argmin(1) + 1
    expected = (nearest != (features @ weight.T).argmax(1)).double().mean()
    torch.testing.assert_close(metric.compute()["nc4_fixed"], expected)


def test_fixed_means_that_do_not_fit_are_refused(make):
    features, labels = make(COUNTS, 8, 1.0)
    stats = ClassStatistics.from_features(features, labels, K)
    with pytest.raises(ValueError, match="nc4_fixed, which was not selected"):
        NeuralCollapse(K, 8).fix_means(stats)
    metric = NeuralCollapse(K, 9, ["nc4_fixed"])
    with pytest.raises(ValueError, match=r"means must be \(5, 9\)"):
        metric.fix_means(stats)
    with pytest.raises(ValueError, match="at least 2 need samples"):
        metric.fix_means()


def test_metrics_of_other_fixed_means_are_not_merged(make):
    features, labels = make(COUNTS, 8, 1.0)
    metrics = [NeuralCollapse(K, 8, ["nc4_fixed"]) for _ in range(3)]
    for metric, shift in zip(metrics, (0, 0, 1), strict=True):
        metric.fix_means(ClassStatistics.from_features(features + 1, labels, K))
        metric.fix_means(ClassStatistics.from_features(features + shift, labels, K))
        metric.update(features, labels, torch.ones(K, 8))
    metrics[0].merge_state(metrics[1])
    with pytest.raises(ValueError, match="cannot be merged"):
        metrics[0].merge_state(metrics[2])
