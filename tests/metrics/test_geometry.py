"""SELI, GOF and ETF against their definitions and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from deq_collapse.metrics.geometry import (
    gof,
    gram_distance,
    logit_distance,
    normalised,
    relu_ce,
    seli,
    simplex_etf_gram,
)

STEP = [(K, R) for K in (2, 3, 7, 20) for R in (1, 10, 100, 1000)]


def step(K: int, R: int) -> list[int]:
    return [R] * (K // 2) + [1] * (K - K // 2)


@pytest.mark.parametrize("K", range(2, 21))
def test_equal_counts_give_the_simplex_etf(K):
    for gram in seli([7] * K):
        torch.testing.assert_close(gram, simplex_etf_gram(K), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("K", "R"), STEP)
def test_seli_matches_the_svd_of_the_simplex_labels(K, R):
    counts = step(K, min(R, 100))
    y = np.repeat(np.arange(K), counts)
    V, L, U = np.linalg.svd((np.arange(K)[:, None] == y) - 1 / K, full_matrices=False)
    first = np.searchsorted(y, np.arange(K))
    V, L, U = V[:, : K - 1], L[: K - 1], U[: K - 1, first]
    found = seli(counts)
    for gram, expected in zip(found, ((V * L) @ V.T, (U.T * L) @ U, (V * L) @ U), strict=True):
        torch.testing.assert_close(gram, normalised(torch.from_numpy(expected)), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("K", "R"), [(K, R) for K, R in STEP if K % 2 == 0])
def test_seli_matches_the_closed_form_of_equal_halves(K, R):
    # Eigenvalues of P D P for K/2 classes of R and K/2 of 1: R and 1 within the halves, (R + 1)/2 across.
    half = torch.ones(K // 2, K // 2, dtype=torch.float64) * 2 / K
    within = torch.eye(K // 2, dtype=torch.float64) - half
    across = torch.tensor([1.0] * (K // 2) + [-1.0] * (K // 2), dtype=torch.float64) / K**0.5
    root = torch.block_diag(R**0.5 * within, within) + ((R + 1) / 2) ** 0.5 * across.outer(across)
    torch.testing.assert_close(seli(step(K, R)).weights, normalised(root), rtol=0, atol=1e-12)


def test_a_target_first_asked_for_in_inference_mode_serves_autograd_later():
    with torch.inference_mode():
        seli([31, 17, 5])
    gram = torch.eye(3, dtype=torch.float64, requires_grad=True)
    gram_distance(gram * 2, seli([31, 17, 5]).means).backward()
    assert gram.grad is not None


@pytest.mark.parametrize(("K", "R"), STEP)
def test_gof_is_a_stationary_point_of_its_loss(K, R):
    n = torch.tensor(step(K, R), dtype=torch.float64)
    decay_w, decay_h = 2e-3 / R, 1e-4 / R / n.sum()
    s = (1 - n.sum() * (decay_w * decay_h / n).sqrt()).clamp(min=0)
    assert s.max() > 0
    frame = torch.eye(K, dtype=torch.float64)
    W = ((s * (n * decay_h / decay_w).sqrt()).sqrt()[:, None] * frame).requires_grad_()
    H = ((s * (decay_w / (n * decay_h)).sqrt()).sqrt()[:, None] * frame).requires_grad_()
    fit = (n * (W @ H.T - torch.eye(K)).square().sum(0)).sum() / (2 * n.sum())
    loss = fit + decay_w / 2 * W.square().sum() + decay_h / 2 * (n[:, None] * H.square()).sum()
    gradients = torch.autograd.grad(loss, [W, H])
    assert max(float(g.abs().max()) for g in gradients) < 1e-12
    found = gof(step(K, R), float(decay_w), float(decay_h))
    torch.testing.assert_close(found.weights, normalised((W @ W.T).detach()))
    torch.testing.assert_close(found.means, normalised((H @ H.T).detach()))
    torch.testing.assert_close(found.logits, normalised((W @ H.T).detach()))


def test_without_decay_lengths_follow_the_counts():
    found = gof([100, 1])
    assert float(found.weights[0, 0] / found.weights[1, 1]) == pytest.approx(10)
    assert float(found.means[0, 0] / found.means[1, 1]) == pytest.approx(0.1)


def test_strong_decay_loses_the_minority_class_first():
    found = gof([1000, 1], weight_decay=1e-2, feature_decay=1e-3)
    assert found.weights[0, 0] > 0
    assert found.weights[1, 1] == 0


def relu_minimum(counts, weight_decay, feature_decay, seed=0):
    """W (K, d) and one feature >= 0 per sample, H (N, d): least of regularised cross entropy, by L-BFGS-B."""
    K, d, N = len(counts), len(counts) + 1, sum(counts)
    y = torch.repeat_interleave(torch.arange(K), torch.tensor(counts))
    generator = np.random.default_rng(seed)

    def value(flat):
        W, H = (t.requires_grad_() for t in torch.from_numpy(flat.copy()).view(K + N, d).split([K, N]))
        loss = torch.nn.functional.cross_entropy(H @ W.T, y)
        loss = loss + weight_decay / 2 * W.square().sum() + feature_decay / 2 * H.square().sum()
        gradients = torch.autograd.grad(loss, [W, H])
        return float(loss.detach()), torch.cat(gradients).flatten().numpy()

    # Features open near an orthogonal frame: classes that share a direction at first may keep it.
    opening = np.eye(K, d)[y.numpy()] + 0.1 * generator.random((N, d))
    start = np.concatenate([0.1 * generator.standard_normal((K, d)), opening])
    bounds = [(None, None)] * (K * d) + [(0, None)] * (N * d)
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 0, "gtol": 1e-11, "maxcor": 30}
    found = minimize(value, start.flatten(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    W, H = torch.from_numpy(found.x).view(K + N, d).split([K, N])
    return W, H, y


@pytest.mark.parametrize(
    ("counts", "decays"),
    [
        ([4, 4, 4, 4], (5e-3, 2e-3)),
        ([12, 6, 3, 1], (5e-3, 2e-3)),
        ([8, 8, 1, 1, 1], (1e-3, 1e-3)),
        ([9, 3], (1e-2, 1e-3)),
        ([20, 20, 1], (2e-2, 3e-2)),  # the last class vanishes
    ],
)
def test_descent_with_features_after_a_relu_ends_at_its_closed_form(counts, decays):
    W, H, y = relu_minimum(counts, *decays)
    means = torch.stack([H[y == c].mean(0) for c in range(len(counts))])
    torch.testing.assert_close(H, means[y], rtol=0, atol=1e-5)
    found = relu_ce(counts, *decays)
    for gram, target in zip((W @ W.T, means @ means.T, W @ means.T), found, strict=True):
        torch.testing.assert_close(normalised(gram), target, rtol=0, atol=1e-5)
    # The lengths themselves, not only their proportions.
    K, N, n = len(counts), sum(counts), torch.tensor(counts, dtype=torch.float64)
    margins = ((K - 1) * ((K * n / (K - 1) / math.prod(decays)).sqrt() / N - 1)).clamp(min=1).log()
    lengths = margins * ((K - 1) * decays[0] / (K * n * decays[1])).sqrt()
    torch.testing.assert_close(means.square().sum(1), lengths, rtol=1e-4, atol=1e-6)
    assert bool((margins == 0).any()) == (counts[-1] <= K / (K - 1) * N**2 * math.prod(decays))


@pytest.mark.parametrize(("K", "R"), STEP)
def test_features_after_a_relu_as_decays_vanish(K, R):
    found = relu_ce(step(K, R))
    torch.testing.assert_close(found.means, gof(step(K, R)).means)
    torch.testing.assert_close(found.logits, simplex_etf_gram(K))
    P, roots = torch.eye(K, dtype=torch.float64) - 1 / K, torch.tensor(step(K, R), dtype=torch.float64).sqrt()
    torch.testing.assert_close(found.weights, normalised(P @ roots.diag() @ P))
    # Margins grow like the logarithm of the decays, so the limit is reached as slowly.
    distances = [float((relu_ce(step(K, R), 1, 10.0**-e).means - found.means).norm()) for e in (30, 100, 300)]
    assert distances == sorted(distances, reverse=True) or R == 1
    assert distances[-1] < 0.01


def test_sample_weighted_distance_is_that_of_all_samples():
    counts = torch.tensor([5, 2, 1])
    rows = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = seli(counts.tolist()).means
    y = torch.repeat_interleave(torch.arange(3), counts)
    expected = gram_distance(rows[y] @ rows[y].T, target[y][:, y])
    torch.testing.assert_close(gram_distance(rows @ rows.T, target, counts), expected)


def test_sample_weighted_distance_of_logits_counts_columns_alone():
    counts, generator = torch.tensor([50, 7, 1]), torch.Generator().manual_seed(0)
    W, H = (torch.randn(3, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    target = seli(counts.tolist()).logits
    y = torch.repeat_interleave(torch.arange(3), counts)
    expected = (normalised(W @ H[y].T) - normalised(target[:, y])).norm()
    torch.testing.assert_close(logit_distance(W @ H.T, target, counts), expected)
    torch.testing.assert_close(logit_distance(W @ H.T, target), gram_distance(W @ H.T, target))


@pytest.mark.parametrize("counts", [[5], [3, 0], []])
def test_counts_that_are_no_counts_are_refused(counts):
    with pytest.raises(ValueError, match="class counts"):
        seli(counts)
    with pytest.raises(ValueError, match="class counts"):
        gof(counts)
    with pytest.raises(ValueError, match="class counts"):
        relu_ce(counts)
