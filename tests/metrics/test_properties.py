"""Facts that hold for all features: ideal geometries give ideal values; coordinates do not matter."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deq_collapse.metrics import NeuralCollapse
from deq_collapse.metrics.geometry import simplex_etf_gram

few = settings(max_examples=25)
classes = st.integers(2, 8)
seeds = st.integers(0, 2**31)


def features(K, d, seed, noise=0.3, per_class=6):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(K, (per_class * K,), generator=generator)
    labels[:K] = torch.arange(K)
    means = torch.randn(K, d, generator=generator, dtype=torch.float64)
    h = means[labels] + noise * torch.randn(len(labels), d, generator=generator, dtype=torch.float64)
    weight = torch.randn(K, d, generator=generator, dtype=torch.float64)
    return h, labels, weight, torch.randn(K, generator=generator, dtype=torch.float64)


def values(h, y, weight=None, bias=None, batch=1000, **kwargs):
    K = len(weight) if weight is not None else int(y.max()) + 1
    metric = NeuralCollapse(K, h.shape[1], **kwargs)
    for start in range(0, len(h), batch):
        metric.update(h[start : start + batch], y[start : start + batch], weight, bias)
    return {name: float(value) for name, value in metric.compute().items()}


def rotation(d, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q


def close(left, right, names=None):
    for name in names or left:
        assert left[name] == pytest.approx(right[name], rel=1e-7, abs=1e-7), name


@few
@given(K=classes, scale=st.floats(1e-3, 1e3), seed=seeds)
def test_a_collapsed_simplex_etf_gives_zero_everywhere(K, scale, seed):
    etf = simplex_etf_gram(K) @ rotation(K, seed)
    labels = torch.arange(K).repeat(3)
    found = values(scale * etf[labels], labels, etf, torch.zeros(K), majority=[0])
    zero = [name for name in found if name.startswith(("nc", "cdnv", "seli")) and name != "nc3_alignment"]
    assert len(zero) > 12
    for name in zero:
        assert found[name] == pytest.approx(0, abs=1e-7), name
    assert found["uniformity"] == pytest.approx(0, abs=1e-7)
    assert found["nc3_alignment"] == pytest.approx(1)
    assert found["between_rank"] == K - 1


@few
@given(K=classes, seed=seeds, scale=st.floats(1e-2, 1e2))
def test_rotation_and_scaling_change_nothing(K, seed, scale):
    h, y, weight, _ = features(K, 6, seed)
    Q = rotation(6, seed + 1)
    close(values(h, y, weight), values(scale * h @ Q, y, weight @ Q))


@few
@given(K=classes, seed=seeds, shift=st.floats(-100, 100))
def test_translation_changes_nothing_when_the_bias_moves_along(K, seed, shift):
    h, y, weight, bias = features(K, 6, seed)
    moved = values(h + shift, y, weight, bias - weight.sum(1) * shift)
    found = values(h, y, weight, bias)
    close(found, moved, [name for name in found if not name.startswith(("gof", "relu_ce"))])


@few
@given(K=classes, seed=seeds, batch=st.integers(1, 50))
def test_order_and_splits_of_batches_change_nothing(K, seed, batch):
    h, y, weight, bias = features(K, 6, seed)
    order = torch.randperm(len(h), generator=torch.Generator().manual_seed(seed))
    close(values(h, y, weight, bias), values(h[order], y[order], weight, bias, batch=batch))


@few
@given(K=st.integers(3, 8), seed=seeds)
def test_relabelling_classes_changes_nothing(K, seed):
    h, y, weight, bias = features(K, 6, seed)
    order = torch.randperm(K, generator=torch.Generator().manual_seed(seed))
    majority = [0, 1] if K > 3 else [0]
    moved = [int((order == c).nonzero()) for c in majority]
    found = values(h, y, weight, bias, majority=majority)
    close(found, values(h, torch.argsort(order)[y], weight[order], bias[order], majority=moved))


@few
@given(K=classes, seed=seeds, factor=st.floats(1e-3, 1e3))
def test_within_class_values_grow_with_the_square_of_the_noise(K, seed, factor):
    h, y, _, _ = features(K, 6, seed)
    means = torch.zeros(K, 6, dtype=torch.float64).index_add(0, y, h) / torch.bincount(y)[:, None]
    wanted = ["nc1", "nc1_trace_ratio", "cdnv"]
    base = values(h, y, metrics=wanted)
    more = values(means[y] + math.sqrt(factor) * (h - means[y]), y, metrics=wanted)
    for name in wanted:
        assert more[name] == pytest.approx(factor * base[name], rel=1e-7)
