"""Descent on unconstrained-feature models towards each closed form, as one table."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from deq_collapse.metrics.geometry import Geometry, gof, gram_distance, seli, simplex_etf_gram
from deq_collapse.theory.closed_forms import linear_network
from deq_collapse.theory.descent import Model, cross_entropy, descend, squared_error, squared_hinge

BALANCED, STEP = (100,) * 10, (100,) * 3 + (10,) * 7


class Case(NamedTuple):
    """A model, the normalised Gram matrices of weights, means and logits that solve it, and the rate,
    momentum and number of steps of descent.
    """

    model: Model
    target: tuple[Tensor, Tensor, Tensor]
    rate: float
    steps: int = 1000
    momentum: float = 0.9


def cases() -> Mapping[str, Case]:
    """The models whose optimum has a closed form, with 10 classes each."""
    etf, frame = simplex_etf_gram(10), gof(BALANCED, 1e-3, 1e-3)
    deep = linear_network(STEP, (1e-3,) * 3, 1e-4).geometry
    error = squared_error
    return {
        "ETF: cross entropy": Case(Model(BALANCED, (5e-3,), 5e-5, cross_entropy), (etf,) * 3, 30),
        "ETF: squared error, bias": Case(Model(BALANCED, (1e-3,), 1e-3, error, bias=True), (etf,) * 3, 1),
        "orthogonal: squared error": Case(Model(BALANCED, (1e-3,), 1e-3, error), frame, 3),
        "GOF, R = 10: squared error": Case(Model(STEP, (1e-3,), 1e-3, error), gof(STEP, 1e-3, 1e-3), 10),
        "GOF, 3 layers, R = 10": Case(Model(STEP, (1e-3,) * 3, 1e-4, error), deep, 1, steps=3000),
        "SELI, R = 10: squared hinge": Case(
            Model(STEP, (2e-5,), 2e-5, squared_hinge), seli(STEP), 1, steps=10_000, momentum=0.99
        ),
    }


def approach_table() -> pd.DataFrame:
    """Normalised distance of each Gram matrix to its closed form along descent."""
    rows = []
    for name, case in cases().items():
        points = descend(case.model, 10, case.rate, case.steps, case.momentum)
        for step, point in points.items():
            for part, found, target in zip(Geometry._fields, point, case.target, strict=True):
                rows.append((name, step, part, float(gram_distance(found, target))))
    return pd.DataFrame(rows, columns=["case", "step", "part", "distance"])
