"""Outliers in float32 features cost NC1 and CDNV no digits, wherever they come."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deq_collapse.metrics import ClassStatistics, NeuralCollapse, functional

SCATTER = ["nc1", "cdnv"]
# With nc4, and few classes, NC1 comes from the samples that are kept for it.
BOTH = st.sampled_from([SCATTER, [*SCATTER, "nc4"]])


def opened_by_outliers(K: int, d: int, n: int, size: float, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Every class opens with an outlier of `size` times the noise, and ends with its mirror image.

    Outliers are orthogonal to all means, which their sum of 0 does not move either: NC1 has no part of them
    but what they make others round.
    """
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    means = torch.randn(K, d, generator=generator, dtype=torch.float64)
    means[:, -4:] = 0
    labels = torch.arange(K * n) % K
    labels[K : -1 - K] = labels[K : -1 - K][torch.randperm(K * n - 2 * K - 1, generator=generator)]
    features = means[labels] + noise * torch.randn(K * n, d, generator=generator, dtype=torch.float64)
    outliers = noise * size * torch.randn(K, 4, generator=generator, dtype=torch.float64)
    features[:K, -4:] += outliers
    features[-K:, -4:] -= outliers
    return (features @ rotation).float(), labels


def agree(values: dict[str, Tensor], features: Tensor, labels: Tensor, K: int) -> None:
    stats = ClassStatistics.from_features(features, labels, K)
    assert float(values["nc1"]) == pytest.approx(float(functional.nc1(stats)), rel=1e-6)
    assert float(values["cdnv"]) == pytest.approx(float(functional.cdnv(stats)), rel=1e-6)


@settings(max_examples=40)
@given(
    st.sampled_from([(2, 8), (4, 16), (12, 16), (30, 40)]),
    st.sampled_from([12, 50]),
    st.sampled_from([10.0, 1000.0, 10_000.0]),
    st.sampled_from([1e-1, 1e-3]),
    st.sampled_from([1, 2, 3, 7, 16, 100, 1000]),
    st.integers(0, 1000),
    BOTH,
)
def test_classes_that_all_open_with_an_outlier(shape, n, size, noise, batch, seed, metrics):
    # A batch of few holds one sample of a class, which is the outlier; nothing there says so.
    K, d = shape
    features, labels = opened_by_outliers(K, d, n, size, noise, seed)
    metric = NeuralCollapse(K, d, metrics=metrics)
    for h, y in zip(features.split(batch), labels.split(batch), strict=True):
        metric.update(h, y, torch.ones(K, d))
    agree(metric.compute(), features, labels, K)


@settings(max_examples=12)
@given(st.integers(0, 1000), st.sampled_from([1, 7, 100]), st.integers(1, 399), st.booleans())
def test_outliers_met_before_a_merge_or_a_checkpoint(seed, batch, cut, saves):
    K, d = 8, 16
    features, labels = opened_by_outliers(K, d, 50, 1000.0, 1e-2, seed)
    first, second = (NeuralCollapse(K, d, metrics=SCATTER) for _ in range(2))
    for h, y in zip(features[:cut].split(batch), labels[:cut].split(batch), strict=True):
        first.update(h, y)
    if saves:
        first.persistent(True)
        second.persistent(True)
        second.load_state_dict(first.state_dict())
    for h, y in zip(features[cut:].split(batch), labels[cut:].split(batch), strict=True):
        second.update(h, y)
    if not saves:
        second.merge_state(first)
    agree(second.compute(), features, labels, K)


def test_outliers_as_forward_merges_batch_by_batch():
    K, d = 4, 16
    features, labels = opened_by_outliers(K, d, 50, 1000.0, 1e-2, 0)
    metric = NeuralCollapse(K, d, metrics=SCATTER)
    for h, y in zip(features.split(20), labels.split(20), strict=True):
        metric(h, y)
    agree(metric.compute(), features, labels, K)
