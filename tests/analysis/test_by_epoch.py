"""Effects epoch by epoch are those of the curves, from the pairs that enter a comparison at the end."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from deq_collapse.analysis.by_epoch import EffectCurve, effect_curves
from deq_collapse.analysis.contrasts import effect_tables
from deq_collapse.runs.record import Solver
from deq_collapse.runs.study import Contrast, Study

EPOCHS = (1, 2, 4, 8)
LEAD = {1: 0.5, 2: 0.8, 4: 1.0, 8: 1.25}
CONTRAST = Contrast("equilibrium", "refinement", "tied", "equilibrium")
CURVES = [("train", "nc1"), ("train", "nc2_etf_means"), ("test", "accuracy_minority"), ("test", "accuracy")]


def values(imbalance: str, refinement: str, seed: int) -> dict:
    """Every value is 1 / (epoch + seed), a DEQ's `LEAD` times that, and a little of its seed's own."""
    factor = {epoch: LEAD[epoch] if refinement == "equilibrium" else math.exp(0.01 * seed) for epoch in LEAD}
    rows = [
        (epoch, epoch, split, metric, factor[epoch] / (epoch + seed))
        for split, metric in CURVES
        for epoch in EPOCHS
    ]
    history = pd.DataFrame(rows, columns=["epoch", "step", "split", "metric", "value"])
    return {"history": history, "train": {"nc1": factor[8] / (8 + seed)}}


def study_of(make: Callable[..., Study], values: Callable[[str, str, int], dict] = values) -> Study:
    return replace(make(values, refinements=("tied", "equilibrium")), contrasts=(CONTRAST,))


def curves(study: Study) -> dict[str, EffectCurve]:
    return {curve.measure.key: curve for curve in effect_curves(study)}


def test_effects_are_those_put_in_at_every_epoch(made_up: Callable[..., Study]) -> None:
    found = curves(study_of(made_up))
    assert list(found) == [
        "held_out_accuracy_minority",
        "held_out_accuracy",
        "train_nc1",
        "train_nc2_etf_means",
    ]
    for epoch, comparison in found["train_nc1"].comparisons.items():
        assert comparison.effect == pytest.approx(LEAD[epoch] * math.exp(-0.01))  # seeds 0 to 2
    for epoch, comparison in found["train_nc2_etf_means"].comparisons.items():
        told = np.mean([(LEAD[epoch] - math.exp(0.01 * seed)) / (epoch + seed) for seed in range(3)])
        assert comparison.effect == pytest.approx(told)
    assert all(curve.n == 3 and list(curve.comparisons) == list(EPOCHS) for curve in found.values())


def test_after_the_last_epoch_an_effect_is_that_of_the_end(made_up: Callable[..., Study]) -> None:
    study = study_of(made_up)
    (table,) = effect_tables(study)
    at_end = next(e.comparison for e in table.rows[0].effects if e.measure.key == "train_nc1")
    last = curves(study)["train_nc1"].comparisons[8]
    assert (last.effect, last.interval) == (pytest.approx(at_end.effect), pytest.approx(at_end.interval))


def test_only_epochs_at_which_all_pairs_were_measured_count(made_up: Callable[..., Study]) -> None:
    def sparse(imbalance: str, refinement: str, seed: int) -> dict:
        made = values(imbalance, refinement, seed)
        history = made["history"]
        return made | {"history": history[(history["epoch"] != 2) | (refinement == "tied") | (seed != 1)]}

    assert list(curves(study_of(made_up, sparse))["train_nc1"].comparisons) == [1, 4, 8]


def test_what_enters_no_comparison_at_the_end_enters_none_before(made_up: Callable[..., Study]) -> None:
    """Seed 0 missed fixed points of test images, seeds 0 and 1 of training images."""

    def missing(split: str, seeds: tuple[int, ...]) -> Callable[[str, str, int], dict]:
        def make(imbalance: str, refinement: str, seed: int) -> dict:
            solver = Solver("ift", 11.0, 9.0, 1e-4, 0.0, 0.0, 1e-3) if refinement == "equilibrium" else None
            made = values(imbalance, refinement, seed) | {"solver": solver}
            missed = {"unconverged": 0.1 if seed in seeds else 0.0}
            return made | {split: made.get(split, {}) | missed}

        return make

    found = curves(study_of(made_up, missing("test", (0,))))
    assert (found["train_nc1"].n, found["held_out_accuracy"].n) == (3, 2)
    found = curves(study_of(made_up, missing("train", (0, 1))))
    assert not found  # one pair has no interval
