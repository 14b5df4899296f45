"""Two runs at one training loss: the later values of the faster one do not count."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from deq_collapse.analysis.contrasts import effect_tables, equal_loss_effects
from deq_collapse.analysis.equal_loss import (
    ACCURACY,
    COLLAPSE,
    at_loss,
    compared_at_loss,
    equal_loss_tables,
)
from deq_collapse.runs.study import Contrast, Study

EPOCHS = np.array([1, 2, 3, 4, 5, 6, 8])
NC1, _, NC3 = COLLAPSE


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
        final = float(np.exp(-8 * rate))
        return {"history": history(rate, 1.0), "train": {"loss": final, "nc1": final}}

    return made_up(values, refinements=tuple(rates))


def test_networks_on_one_path_are_equal_however_fast_they_walk_it(made_up: Callable[..., Study]) -> None:
    (table,) = equal_loss_tables(study_of(made_up, {"explicit": 0.15, "equilibrium": 0.3}))
    (line,) = table.lines
    nc1 = next(entry for entry in line.entries if entry.measure.title == "NC1")
    assert nc1.baseline["0"] == pytest.approx(np.exp(-1.2))
    assert nc1.other["0"] == pytest.approx(np.exp(-1.2))  # the faster one passed it at its fourth epoch
    assert nc1.comparison.effect == pytest.approx(1.0)  # other seeds pass between measured epochs


def test_values_between_epochs_are_interpolated_in_the_logarithm_of_the_loss(
    made_up: Callable[..., Study],
) -> None:
    run = study_of(made_up, {"explicit": 0.15, "equilibrium": 0.3}).runs[0]
    middle = float(np.exp(-0.15 * 7))
    assert at_loss(run, middle, ACCURACY) == pytest.approx(1 - (np.exp(-0.9) + np.exp(-1.2)) / 2)
    assert at_loss(run, 1e-9, ACCURACY) is None
    assert at_loss(run, float(np.exp(-0.1)), ACCURACY) == pytest.approx(1 - np.exp(-0.15))  # before any epoch
    assert at_loss(run, 10.0, ACCURACY) is None
    assert at_loss(run, middle, NC3) is None


def test_there_is_no_value_far_from_any_measured_epoch(made_up: Callable[..., Study]) -> None:
    run = made_up(lambda imbalance, refinement, seed: {"history": history(0.5, 1.0)}).runs[0]
    measured = np.exp(-0.5 * EPOCHS[-2:])  # after the sixth and the eighth epoch
    for factor, known in ((1 / 1.2, True), (1 / 1.3, False)):
        assert (at_loss(run, float(measured[0] * factor), NC1) is not None) is known
    for factor, known in ((1.2, True), (1.3, False)):
        assert (at_loss(run, float(measured[1] * factor), NC1) is not None) is known


def test_a_run_that_sets_the_loss_has_its_final_values_though_its_loss_was_as_low_before(
    made_up: Callable[..., Study],
) -> None:
    losses = {"explicit": [1.0, 0.25, 0.5, 0.45, 0.4, 0.35, 0.3], "equilibrium": 0.9 ** np.arange(14)[::2]}
    nc1 = {"explicit": [1.0, 0.8, 0.5, 0.3, 0.2, 0.1, 0.05], "equilibrium": losses["equilibrium"] / 10}

    def values(imbalance: str, refinement: str, seed: int) -> dict:
        curves = {"loss": losses[refinement], "nc1": nc1[refinement]}
        rows = [
            (epoch, epoch, "train", metric, value)
            for metric, curve in curves.items()
            for epoch, value in zip(EPOCHS, curve, strict=True)
        ]
        final = {metric: float(curve[-1]) for metric, curve in curves.items()}
        table = pd.DataFrame(rows, columns=["epoch", "step", "split", "metric", "value"])
        return {"history": table, "train": final}

    (table,) = equal_loss_tables(made_up(values))
    (line,) = table.lines
    entry = next(entry for entry in line.entries if entry.measure.title == "NC1")
    assert entry.baseline["0"] == 0.05
    assert entry.other["0"] == pytest.approx(0.03, rel=0.1)


def test_runs_of_one_seed_or_none_have_no_pair(made_up: Callable[..., Study]) -> None:
    study = study_of(made_up, {"explicit": 0.15, "equilibrium": 0.3})
    one, two = (
        [run for run in study.runs if run.axes["refinement"] == name] for name in ("explicit", "equilibrium")
    )
    assert compared_at_loss(one, two, NC1).n == len(one)

    def again(runs: list, seeds: list[str | None]) -> list:
        def axes(run, seed: str | None) -> dict[str, str]:
            rest = {axis: label for axis, label in run.axes.items() if axis != "seed"}
            return rest if seed is None else rest | {"seed": seed}

        return [replace(run, axes=axes(run, seed)) for run, seed in zip(runs, seeds, strict=True)]

    seeds = ["0", "1", "1"]
    assert compared_at_loss(again(one, seeds), again(two, seeds), NC1).n == 1
    assert compared_at_loss(again(one, [None] * 3), again(two, [None] * 3), NC1).n == 0


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_an_nc1_that_is_a_power_of_the_loss_is_interpolated_exactly(
    made_up: Callable[..., Study], power: float
) -> None:
    run = made_up(lambda imbalance, refinement, seed: {"history": history(0.15, power)}).runs[0]
    for loss in np.exp(-0.15 * np.array([1.3, 3.0, 7.9])):
        assert at_loss(run, float(loss), NC1) == pytest.approx(float(loss) ** power)


def test_a_contrast_of_networks_on_one_path_has_no_effect_at_equal_loss(
    made_up: Callable[..., Study],
) -> None:
    study = replace(
        study_of(made_up, {"tied": 0.15, "phantom": 0.3}),
        contrasts=(Contrast("gradient", "refinement", "tied", "phantom"),),
    )
    (at_end,), (at_loss,) = effect_tables(study), equal_loss_effects(study)
    effects = [
        {effect.measure.key: effect.comparison.effect for effect in table.rows[0].effects}
        for table in (at_end, at_loss)
    ]
    assert effects[0]["train_nc1"] < 0.3
    assert effects[1] == pytest.approx({"train_nc1": 1.0, "held_out_accuracy": 0.0}, abs=0.01)


def test_a_side_that_has_not_run_yet_is_no_line(made_up: Callable[..., Study]) -> None:
    missing = tuple(f"step_ka3_r10-explicit-{seed}" for seed in range(3))
    assert equal_loss_tables(made_up(missing=missing)) == []


def test_every_explicit_refinement_has_its_table(made_up: Callable[..., Study]) -> None:
    found = equal_loss_tables(study_of(made_up, {"once": 0.15, "tied": 0.2, "equilibrium": 0.3}))
    assert [table.family.name for table in found] == ["equal_loss_once", "equal_loss_tied"]
    assert equal_loss_tables(study_of(made_up, {"once": 0.15, "tied": 0.2})) == []
