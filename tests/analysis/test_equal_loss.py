"""Two runs at one training loss: the later values of the faster one do not count."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from deq_collapse.analysis.equal_loss import at_loss, equal_loss_tables
from deq_collapse.runs.study import Study

EPOCHS = np.array([1, 2, 4, 8])


def history(rate: float, power: float) -> pd.DataFrame:
    """A loss that falls by a factor e^rate an epoch, and an NC1 that is a power of it."""
    loss = np.exp(-rate * EPOCHS)
    curves = {("train", "loss"): loss, ("train", "nc1"): loss**power, ("test", "accuracy"): 1 - loss}
    rows = [
        (epoch, epoch, split, metric, value)
        for (split, metric), values in curves.items()
        for epoch, value in zip(EPOCHS, values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["epoch", "step", "split", "metric", "value"])


def study_of(made_up: Callable[..., Study], rates: dict[str, float]) -> Study:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        rate = rates[refinement] * (1 + 0.1 * seed)
        return {"history": history(rate, 1.0), "train": {"loss": float(np.exp(-8 * rate))}}

    return made_up(values, refinements=tuple(rates))


def test_networks_on_one_path_are_equal_however_fast_they_walk_it(made_up: Callable[..., Study]) -> None:
    (table,) = equal_loss_tables(study_of(made_up, {"explicit": 0.5, "equilibrium": 1.0}))
    (line,) = table.lines
    nc1 = next(entry for entry in line.entries if entry.measure.title == "NC1")
    assert nc1.baseline["0"] == pytest.approx(np.exp(-4))
    assert nc1.other["0"] == pytest.approx(np.exp(-4))  # the faster one passed it at its fourth epoch
    assert nc1.comparison.effect == pytest.approx(1.0, abs=0.05)  # other seeds pass between measured epochs


def test_values_between_epochs_are_interpolated_in_the_logarithm_of_the_loss(
    made_up: Callable[..., Study],
) -> None:
    run = study_of(made_up, {"explicit": 0.5, "equilibrium": 1.0}).runs[0]
    middle = float(np.exp(-0.5 * 3))
    assert at_loss(run, middle, "train", "nc1") == pytest.approx((np.exp(-1) + np.exp(-2)) / 2)
    assert at_loss(run, 1e-9, "train", "nc1") is None
    assert at_loss(run, 10.0, "train", "nc1") == pytest.approx(np.exp(-0.5))
    assert at_loss(run, middle, "train", "nc3") is None


def test_every_explicit_refinement_has_its_table(made_up: Callable[..., Study]) -> None:
    found = equal_loss_tables(study_of(made_up, {"once": 0.5, "tied": 0.7, "equilibrium": 1.0}))
    assert [table.family.name for table in found] == ["equal_loss_once", "equal_loss_tied"]
    assert equal_loss_tables(study_of(made_up, {"once": 0.5, "tied": 0.7})) == []
