"""What one change adds: contrasts of a study, on values whose effects are known."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from deq_collapse.analysis.contrasts import EFFECTS, EffectTable, effect_tables
from deq_collapse.runs.record import Run, Solver
from deq_collapse.runs.study import Contrast, Study

SOLVER = Solver("ift", 11.0, 9.0, 1e-4, 0.0, 0.0, 1e-3)
CONTRASTS = (
    Contrast("equilibrium", "refinement", "tied", "equilibrium"),
    Contrast("depth", "refinement", "once", "tied"),
    Contrast("bound", "family", "free", "contraction"),
)
MINORITY = {("free", "once"): 0.3, ("free", "tied"): 0.35, ("free", "equilibrium"): 0.45}
BOUND = -0.1
NC1 = {"once": 1.0, "tied": 0.5, "equilibrium": 0.4}


@pytest.fixture
def study(made_up: Callable[..., Study]) -> Study:
    """Two families of three refinements; the bound costs the same everywhere, a seed shifts all alike."""

    def values(family: str) -> Callable[[str, str, int], dict]:
        def make(imbalance: str, refinement: str, seed: int) -> dict:
            shift = (
                BOUND * (family == "contraction") + 0.05 * seed + 0.001 * (seed == 1) * (refinement == "tied")
            )
            minority = MINORITY["free", refinement] + shift
            return {"test": {"accuracy_minority": minority}, "train": {"nc1": NC1[refinement] * (1 + seed)}}

        return make

    parts = [
        made_up(values(family), refinements=("once", "tied", "equilibrium"), axes={"family": family})
        for family in ("free", "contraction")
    ]
    return Study("s", "", parts[0].runs + parts[1].runs, (), parts[0].planned, CONTRASTS)


def effect(table: EffectTable, contrast: str, place: str, measure: str) -> float:
    (row,) = [row for row in table.rows if (row.contrast.name, row.place) == (contrast, place)]
    return next(effect.comparison.effect for effect in row.effects if effect.measure.key == measure)


def test_effects_are_those_put_in(study: Study) -> None:
    (table,) = effect_tables(study)
    for family in ("free", "contraction"):
        assert effect(table, "depth", family, "test_accuracy_minority") == pytest.approx(0.05, abs=1e-3)
        assert effect(table, "equilibrium", family, "test_accuracy_minority") == pytest.approx(0.1, abs=1e-3)
        assert effect(table, "equilibrium", family, "train_nc1") == pytest.approx(0.8)
    for refinement in ("once", "tied", "DEQ", "mean of 3"):
        assert effect(table, "bound", refinement, "test_accuracy_minority") == pytest.approx(BOUND)


def test_depth_and_equilibrium_add_up_to_the_whole(study: Study) -> None:
    whole = replace(study, contrasts=(*CONTRASTS, Contrast("whole", "refinement", "once", "equilibrium")))
    (table,) = effect_tables(whole)
    for measure in EFFECTS:
        parts = [effect(table, name, "free", measure.key) for name in ("depth", "equilibrium", "whole")]
        parts = [math.log(part) for part in parts] if measure.kind == "factor" else parts
        assert parts[0] + parts[1] == pytest.approx(parts[2])


def test_means_are_taken_within_seeds(study: Study) -> None:
    (table,) = effect_tables(study)
    (pooled,) = [row for row in table.rows if row.contrast.name == "depth" and row.pooled]
    assert pooled.place == "mean of 2"
    assert all(effect.comparison.n == 3 for effect in pooled.effects)


def test_a_run_that_missed_fixed_points_is_left_out(study: Study) -> None:
    first = next(run for run in study.runs if run.refinement == "equilibrium")
    unconverged = replace(first, train=first.train | {"unconverged": 0.5}, solver=SOLVER)
    (table,) = effect_tables(
        replace(study, runs=tuple(unconverged if run is first else run for run in study.runs))
    )
    counts = {(row.contrast.name, row.place): row.effects[0].comparison.n for row in table.rows}
    assert counts["equilibrium", "free"] == 2
    assert counts["equilibrium", "contraction"] == counts["depth", "free"] == 3


def test_test_images_without_fixed_points_leave_the_training_split_as_it_is(study: Study) -> None:
    first = next(run for run in study.runs if run.refinement == "equilibrium")
    unsolved = replace(first, test=first.test | {"unconverged": 0.5}, solver=SOLVER)
    (table,) = effect_tables(
        replace(study, runs=tuple(unsolved if run is first else run for run in study.runs))
    )
    (row,) = [row for row in table.rows if (row.contrast.name, row.place) == ("equilibrium", "free")]
    counts = {effect.measure.key: effect.comparison.n for effect in row.effects}
    assert counts == {measure.key: 2 if measure.split == "test" else 3 for measure in EFFECTS}
    assert set(counts.values()) == {2, 3}


def test_a_mean_is_of_all_places_or_not_given(study: Study) -> None:
    def edited(run: Run) -> Run:
        lacks = run.refinement == "equilibrium" and run.axes["family"] == "free"
        return replace(run, test=run.test | {"unconverged": 0.5}, solver=SOLVER) if lacks else run

    (table,) = effect_tables(replace(study, runs=tuple(map(edited, study.runs))))
    (row,) = [row for row in table.rows if row.pooled and row.contrast.name == "equilibrium"]
    assert row.place == "mean of 2"
    assert {effect.measure.split for effect in row.effects} == {"train"}


def test_every_measure_is_a_family_of_tests_of_its_own(study: Study) -> None:
    (table,) = effect_tables(study)
    tests = [
        effect
        for row in table.rows
        for effect in row.effects
        if effect.measure.key == "test_accuracy_minority"
    ]
    known = [effect for effect in tests if not math.isnan(effect.comparison.p)]
    smallest = min(known, key=lambda effect: effect.comparison.p)
    assert smallest.adjusted == pytest.approx(min(1.0, len(known) * smallest.comparison.p))


def test_imbalances_have_tables_of_their_own(made_up: Callable[..., Study]) -> None:
    study = made_up(imbalances=("balanced", "step_ka3_r10"), refinements=("tied", "equilibrium"))
    tables = effect_tables(replace(study, contrasts=CONTRASTS))
    assert [table.imbalance for table in tables] == ["balanced", "step, K_A=3, R=10"]


def test_a_contrast_whose_sides_did_not_run_is_left_out(made_up: Callable[..., Study]) -> None:
    assert effect_tables(replace(made_up(), contrasts=CONTRASTS)) == []
