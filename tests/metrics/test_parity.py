"""Agreement with naive float64 code as public tools write it: (d, d) pseudo-inverses, loops over pairs."""

import numpy as np
import pytest
import torch

from deq_collapse.metrics import NeuralCollapse

# Counts of 3 to 20 classes, widths on either side of K - 1, noise relative to the distances of means.
CASES = {
    "random": ([40] * 3, 8, 1.0),
    "random, no room for a simplex": ([25] * 12, 5, 1.0),
    "random, 20 classes": ([15] * 20, 64, 1.0),
    "long tail": ([200, 120, 70, 40, 25, 15, 8, 5, 3, 2], 32, 0.5),
    "step": ([150, 150, 150, 15, 15, 15, 15], 24, 0.3),
    "one sample in a class": ([60, 60, 1, 20], 12, 0.5),
    "collapsed": ([50] * 10, 32, 1e-4),
    "collapsed, imbalanced": ([300, 30, 30, 3], 16, 1e-5),
}
Classifier = tuple[torch.Tensor, torch.Tensor]


def class_means(h: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([np.mean(h[y == c], axis=0) for c in np.unique(y)])


def global_mean(h: np.ndarray, y: np.ndarray, centre: str) -> np.ndarray:
    return h.mean(0) if centre == "samples" else class_means(h, y).mean(0)


def covariances(h: np.ndarray, y: np.ndarray, centre: str, weighting: str) -> tuple[np.ndarray, np.ndarray]:
    """Sigma_W and Sigma_B, one outer product at a time."""
    means, middle, d = class_means(h, y), global_mean(h, y, centre), h.shape[1]
    within, between = np.zeros((d, d)), np.zeros((d, d))
    for x, c in zip(h, y, strict=True):
        share = len(h) if weighting == "samples" else len(means) * np.sum(y == c)
        within += np.outer(x - means[c], x - means[c]) / share
    for mean in means:
        between += np.outer(mean - middle, mean - middle) / len(means)
    return within, between


def papyan_nc1(within: np.ndarray, between: np.ndarray, num_classes: int) -> float:
    return float(np.trace(within @ np.linalg.pinv(between, rcond=1e-10, hermitian=True)) / num_classes)


def quotient(within: np.ndarray, between: np.ndarray) -> float:
    return float(np.trace(within) / np.trace(between))


def galanti_cdnv(h: np.ndarray, y: np.ndarray) -> float:
    means, K = class_means(h, y), len(np.unique(y))
    total = 0.0
    for a in range(K):
        for b in range(K):
            if a != b:
                v_a, v_b = (np.mean(np.sum((h[y == c] - means[c]) ** 2, axis=1)) for c in (a, b))
                total += (v_a + v_b) / (2 * np.sum((means[a] - means[b]) ** 2))
    return total / (K * (K - 1))


def structure_error(A: np.ndarray, B: np.ndarray) -> float:
    """Distance of the normalised A B^T to the Gram matrix of the simplex ETF, its entries written out."""
    K = len(A)
    structure = A @ B.T / np.linalg.norm(A @ B.T)
    ideal = np.full((K, K), -1 / (K * np.sqrt(K - 1)))
    np.fill_diagonal(ideal, (1 - 1 / K) / np.sqrt(K - 1))
    return float(np.linalg.norm(structure - ideal))


def disagreement(h: np.ndarray, y: np.ndarray, W: np.ndarray, b: np.ndarray) -> float:
    means = class_means(h, y)
    differs = [np.argmin([np.linalg.norm(x - mean) for mean in means]) != np.argmax(W @ x + b) for x in h]
    return float(np.mean(differs))


def classifiers(h: np.ndarray, y: np.ndarray) -> dict[str, Classifier]:
    """Of random rows, and one with a bias that decides like the nearest mean but for its noise."""
    means, generator = torch.from_numpy(class_means(h, y)), torch.Generator().manual_seed(7)
    noise = torch.randn(means.shape, generator=generator, dtype=torch.float64)
    offsets = torch.randn(len(means), generator=generator, dtype=torch.float64)
    nearest = means + 0.5 * means.std() * noise
    return {"random": (noise, offsets), "near": (nearest, -0.5 * nearest.square().sum(1))}


@pytest.mark.parametrize(
    ("centre", "weighting"), [("classes", "samples"), ("samples", "samples"), ("classes", "classes")]
)
@pytest.mark.parametrize("case", CASES)
def test_values_agree_with_naive_code(make, case, centre, weighting):
    counts, width, noise = CASES[case]
    features, labels = make(counts, width, noise, norm=3.0, offset=0.5, seed=len(counts))
    h, y = features.numpy(), labels.numpy()
    M = class_means(h, y) - global_mean(h, y, centre)
    within, between = covariances(h, y, centre, weighting)
    for weight, bias in classifiers(h, y).values():
        metric = NeuralCollapse(len(counts), width, centre=centre, weighting=weighting)
        for x, classes in zip(features.split(37), labels.split(37), strict=True):
            metric.update(x, classes, weight, bias)
        values = metric.compute()
        W = weight.numpy()
        expected = {
            "nc1": papyan_nc1(within, between, len(counts)),
            "nc1_trace_ratio": quotient(within, between),
            "cdnv": galanti_cdnv(h, y),
            "nc2_etf_means": structure_error(M, M),
            "nc2_etf_weights": structure_error(W, W),
            "nc3_product": structure_error(W, M),
            "nc4": disagreement(h, y, W, bias.numpy()),
        }
        for name, value in expected.items():
            assert float(values[name]) == pytest.approx(value, rel=1e-6, abs=1e-12), name
