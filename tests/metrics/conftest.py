"""Independent two-pass float64 NumPy reference, and makers of features with a known degree of collapse."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from deq_collapse.metrics import NeuralCollapse

Reference = Callable[..., dict[str, float]]
Make = Callable[..., tuple[Tensor, Tensor]]


def _normed(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix)


def _two_passes(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, num_classes: int
) -> dict[str, float]:
    h, y = features.double().numpy(), labels.numpy()
    W, b = weight.double().numpy(), bias.double().numpy()
    K = num_classes
    means = np.stack([h[y == c].mean(0) for c in range(K)])
    means = np.stack([means[c] + (h[y == c] - means[c]).mean(0) for c in range(K)])
    r = h - means[y]
    M = means - means.mean(0)
    within = r.T @ r / len(h)
    _, s, vt = np.linalg.svd(M, full_matrices=False)
    rank = min(K - 1, h.shape[1])
    directions = vt[:rank]
    nc1 = sum(v @ within @ v * K / s[i] ** 2 for i, v in enumerate(directions)) / K
    v = np.array([(r[y == c] ** 2).sum(1).mean() for c in range(K)])
    pairs = [(a, c) for a in range(K) for c in range(K) if a != c]
    etf = (np.eye(K) - 1 / K) / np.sqrt(K - 1)

    def angle(rows: np.ndarray) -> float:
        n = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return float(np.mean([abs(n[a] @ n[c] + 1 / (K - 1)) for a, c in pairs]))

    def variation(rows: np.ndarray) -> float:
        return float(np.linalg.norm(rows, axis=1).std() / np.linalg.norm(rows, axis=1).mean())

    n = np.bincount(y, minlength=K)
    # The definition of SELI, on the (K, N) matrix of labels, brought back to one column per class.
    zhat = (np.arange(K)[:, None] == y) - 1 / K
    V, L, U = np.linalg.svd(zhat, full_matrices=False)
    V, L, U = V[:, :-1], L[:-1], U[:-1]
    first = [int(np.argmax(y == c)) for c in range(K)]
    seli_w, seli_h = (V * L) @ V.T, ((U.T * L) @ U)[np.ix_(first, first)]
    nearest = np.stack([np.linalg.norm(r + means[y] - means[c], axis=1) for c in range(K)]).argmin(0)
    P = np.eye(K) - 1 / K
    relu_w = P @ np.diag(n**0.5) @ P
    return {
        "nc0": float(sum(W[:, j].sum() ** 2 for j in range(W.shape[1])) / K),
        "nc1": float(nc1),
        "nc1_trace_ratio": float((r**2).sum() / len(h) / ((M**2).sum() / K)),
        "cdnv": float(np.mean([(v[a] + v[c]) / (2 * ((M[a] - M[c]) ** 2).sum()) for a, c in pairs])),
        "nc2_norm_means": variation(M),
        "nc2_norm_weights": variation(W),
        "nc2_angle_means": angle(M),
        "nc2_angle_weights": angle(W),
        "nc2_etf_means": float(np.linalg.norm(_normed(M @ M.T) - etf)),
        "nc2_etf_weights": float(np.linalg.norm(_normed(W @ W.T) - etf)),
        "nc3": float(np.linalg.norm(_normed(W) - _normed(M)) ** 2),
        "nc3_product": float(np.linalg.norm(_normed(W @ M.T) - etf)),
        "nc3_alignment": float(
            np.mean([W[c] @ M[c] / np.linalg.norm(W[c]) / np.linalg.norm(M[c]) for c in range(K)])
        ),
        "seli_means": float(np.linalg.norm(_normed(M @ M.T) - _normed(seli_h))),
        "seli_weights": float(np.linalg.norm(_normed(W @ W.T) - _normed(seli_w))),
        "seli_logits": float(np.linalg.norm(_normed(W @ M.T) - etf)),
        "gof_means": float(np.linalg.norm(_normed(means @ means.T) - _normed(np.diag(n**-0.5)))),
        "gof_weights": float(np.linalg.norm(_normed(W @ W.T) - _normed(np.diag(n**0.5)))),
        "relu_ce_means": float(np.linalg.norm(_normed(means @ means.T) - _normed(np.diag(n**-0.5)))),
        "relu_ce_weights": float(np.linalg.norm(_normed(W @ W.T) - _normed(relu_w))),
        "relu_ce_logits": float(np.linalg.norm(_normed(W @ means.T) - etf)),
        "nc4": float(np.mean(nearest != (h @ W.T + b).argmax(1))),
    } | _two_majority_classes(means, W, v)


def _two_majority_classes(means: np.ndarray, W: np.ndarray, v: np.ndarray) -> dict[str, float]:
    """With 0 and 1 as the majority; v holds the variances of classes."""
    K, M = len(means), means - means.mean(0)

    def cosine(a: np.ndarray, c: np.ndarray) -> float:
        return float(a @ c / np.linalg.norm(a) / np.linalg.norm(c))

    def cdnv(a: int) -> float:
        others = [c for c in range(K) if c != a]
        return float(np.mean([(v[a] + v[c]) / 2 / ((M[a] - M[c]) ** 2).sum() for c in others]))

    found: dict[str, float] = {}
    for name, rows in (("means", M), ("weights", W)):
        among = [cosine(rows[a], rows[c]) for a in range(2, K) for c in range(2, a)]
        if among:
            found |= {f"minority_cos_{name}_mean": np.mean(among), f"minority_cos_{name}_max": max(among)}
        lengths = np.linalg.norm(rows, axis=1)
        if lengths[2:].any():
            found[f"majority_minority_norm_{name}"] = lengths[:2].mean() / lengths[2:].mean()
    found["cdnv_majority"] = np.mean([cdnv(0), cdnv(1)])
    found["cdnv_minority"] = np.mean([cdnv(a) for a in range(2, K)])
    unit = M / np.linalg.norm(M, axis=1, keepdims=True)
    apart = [-np.log(np.linalg.norm(unit[a] - unit[c])) for a in range(K) for c in range(a)]
    etf = -np.log(np.sqrt(2 * K / (K - 1)))
    return found | {"uniformity": float(np.mean(apart) - etf)}


@pytest.fixture(scope="session")
def reference() -> Reference:
    """Two passes over all features in NumPy float64, each formula from its definition."""
    return _two_passes


@pytest.fixture(scope="session")
def make() -> Make:
    """Features of K classes: means of a given norm, noise of a given size relative to it."""

    def features(
        counts: list[int], width: int, noise: float, norm: float = 1.0, offset: float = 0.0, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        labels = labels[torch.randperm(len(labels), generator=generator)]
        means = torch.randn(len(counts), width, generator=generator, dtype=torch.float64) / width**0.5
        scatter = torch.randn(len(labels), width, generator=generator, dtype=torch.float64) / width**0.5
        return norm * (means[labels] + noise * scatter + offset), labels

    return features


@pytest.fixture(scope="session")
def measure() -> Callable[..., dict[str, float]]:
    """Values of `NeuralCollapse` over batches of a given size."""

    def values(
        features: Tensor,
        labels: Tensor,
        *classifier: Tensor,
        classes: int = 0,
        batch: int = 64,
        **kwargs: object,
    ) -> dict[str, float]:
        metric = NeuralCollapse(classes or int(labels.max()) + 1, features.shape[1], **kwargs)
        for h, y in zip(features.split(batch), labels.split(batch), strict=True):
            metric.update(h, y, *classifier)
        return {name: float(value) for name, value in metric.compute().items()}

    return values
