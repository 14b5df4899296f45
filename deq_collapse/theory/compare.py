"""Gram matrices of a trained network against ETF, SELI, GOF and the layer-peeled optimum of its energies."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from deq_collapse.metrics.geometry import (
    Geometry,
    gof,
    gram_distance,
    seli,
    simplex_etf_gram,
)
from deq_collapse.theory.loss import log_cross_entropy
from deq_collapse.theory.peeled import Peeled, layer_peeled, minority_cosine


class Comparison(NamedTuple):
    """A network compared with theory.

    Attributes:
        weight_energy: E_W, mean over classes of ||w_c - mean w||^2.
        feature_energy: E_H, mean over classes of ||mu_c - mu_G||^2.
        loss: cross entropy of the class means; not less than that of the optimum.
        optimum: the layer-peeled optimum of these energies and the counts, with a free bias.
        measured: centred Gram matrices, not normalised.
        raw: those of uncentred rows and means.
        targets: Gram matrices by name.
        distances: to the Gram matrices of weights, means and logits of each target; in [0, 2].
        minority_cosines: of classifier rows and of centred class means, measured and at the optimum; nan
            without two minority classes.
    """

    weight_energy: float
    feature_energy: float
    loss: float
    optimum: Peeled
    measured: Geometry
    raw: Geometry
    targets: dict[str, Geometry]
    distances: dict[str, tuple[float, float, float]]
    minority_cosines: dict[str, tuple[float, float]]


def compare(
    weight: Tensor, bias: Tensor, means: Tensor, counts: Sequence[float], majority: Sequence[int] = ()
) -> Comparison:
    """Compares a trained network with theory.

    Rows and means are centred over classes: softmax ignores a common row, and a common mean acts as a bias,
    which the optimum has as well. GOF, whose frame is not centred, is compared with uncentred rows and means.
    Distances are those of `gram_distance` without weights.

    Args:
        weight: (K, d) classifier rows.
        bias: (K,) of the classifier.
        means: (K, d) class means.
        counts: (K,) of the training split.
        majority: indices of majority classes.

    Raises:
        ValueError: for shapes that do not fit together, or means or rows that all coincide.
    """
    if weight.shape != means.shape or len(weight) != len(counts):
        raise ValueError("classifier, class means and counts do not have the same classes and width")
    weight, means = weight.double(), means.double()
    W, M = weight - weight.mean(0), means - means.mean(0)
    weight_energy, feature_energy = float(W.square().sum(1).mean()), float(M.square().sum(1).mean())
    if not min(weight_energy, feature_energy) > 0:
        raise ValueError("all classifier rows or all class means coincide: there is no geometry to compare")
    optimum = layer_peeled(counts, weight_energy, feature_energy, bias=True)
    measured = Geometry(W @ W.T, M @ M.T, W @ M.T)
    raw = Geometry(weight @ weight.T, means @ means.T, weight @ means.T)
    etf = simplex_etf_gram(len(counts))
    targets = {
        "ETF": Geometry(etf, etf, etf),
        "SELI": seli([int(n) for n in counts]),
        "layer-peeled": Geometry(optimum.weights, optimum.means, optimum.logits),
        "GOF": gof([int(n) for n in counts]),
    }
    distances = {
        name: _distances(raw if name == "GOF" else measured, target) for name, target in targets.items()
    }
    order = [*majority, *(c for c in range(len(counts)) if c not in set(majority))] if majority else []
    cosines = {
        name: (_cosine(found, order, majority), _cosine(ideal, order, majority))
        for name, found, ideal in (
            ("weights", measured.weights, optimum.weights),
            ("means", measured.means, optimum.means),
        )
    }
    loss = float(log_cross_entropy(raw.logits + bias.double()[:, None], counts).exp())
    return Comparison(
        weight_energy, feature_energy, loss, optimum, measured, raw, targets, distances, cosines
    )


def _distances(found: Geometry, target: Sequence[Tensor]) -> tuple[float, float, float]:
    weights, means, logits = (float(gram_distance(a, b)) for a, b in zip(found, target, strict=True))
    return weights, means, logits


def _cosine(gram: Tensor, order: Sequence[int], majority: Sequence[int]) -> float:
    return minority_cosine(gram[order][:, order], len(majority)) if order else float("nan")
