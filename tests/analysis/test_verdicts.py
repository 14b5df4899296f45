"""A verdict follows its rule, and says no more than the runs do."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from deq_collapse.analysis.verdicts import CLAIMS, records, verdicts
from deq_collapse.runs.record import Solver
from deq_collapse.runs.study import Study

MakeUp = Callable[..., Study]
SOLVER = Solver("ift", 11.0, 9.0, 1e-4, 0.0, 0.0, 1e-3)
NOISE = (0.001, -0.002, 0.0015, 0.0005, -0.001, 0.002, -0.0005, 0.0012)


def shifted(shift: float) -> Callable[[str, str, int], dict]:
    """NC2 of the equilibrium is `shift` above the explicit one's, give or take little."""

    def values(imbalance: str, refinement: str, seed: int) -> dict:
        equilibrium = refinement == "equilibrium"
        return {
            "train": {"nc2_etf_means": 0.2 + (shift + NOISE[seed] + 0.0001 * len(imbalance)) * equilibrium}
        }

    return values


def word(study: Study, claim: str = "nearer_etf") -> str:
    return next(verdict.word for verdict in verdicts(study).pooled if verdict.claim.key == claim)


@pytest.mark.parametrize(
    ("shift", "said"), [(-0.05, "supported"), (0.05, "not supported"), (0.0, "undecided")]
)
def test_a_verdict_goes_with_the_direction(made_up: MakeUp, shift: float, said: str) -> None:
    assert word(made_up(shifted(shift), seeds=5)) == said


def test_a_claim_of_more_is_supported_by_more(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        return {"test": {"accuracy_minority": 0.8 + (0.05 + NOISE[seed]) * (refinement == "equilibrium")}}

    assert word(made_up(values), "minority_accuracy") == "supported"


def test_one_seed_decides_nothing(made_up: MakeUp) -> None:
    assert word(made_up(shifted(-0.19), seeds=1)) == "undecided"


def test_more_claims_ask_for_more_evidence(made_up: MakeUp) -> None:
    """An effect that would do alone may not do among others: the p value is corrected."""

    def values(imbalance: str, refinement: str, seed: int) -> dict:
        rough = (0.010, 0.022, 0.014)[seed] * (refinement == "equilibrium")
        wild = (0.03, -0.05, 0.01)[seed] * (refinement == "equilibrium")
        return {
            "train": {"nc2_etf_means": 0.2 - rough, "nc3": 0.2 + wild, "nc1": 0.2 + wild, "loss": 0.2 + wild}
        }

    first = verdicts(made_up(values)).pooled[0]
    assert first.comparison.p < 0.05
    assert first.adjusted > 0.05
    assert first.word == "undecided"


def test_pooled_counts_seeds_not_settings(made_up: MakeUp) -> None:
    study = made_up(shifted(-0.05), imbalances=("step_ka3_r10", "step_ka5_r50", "step_ka7_r100"))
    found = verdicts(study)
    assert found.pooled[0].comparison.n == 3
    assert found.pooled[0].settings == 3
    assert len(found.single) == 3 * len(CLAIMS)


def test_balanced_runs_say_nothing_of_imbalance(made_up: MakeUp) -> None:
    found = verdicts(made_up(shifted(-0.05), imbalances=("balanced",)))
    assert found.pooled == ()
    assert [share.refinement for share in found.collapse] == ["equilibrium", "explicit"]
    assert [share.implicit for share in found.collapse] == [True, False]


@pytest.mark.parametrize(
    ("collapsed", "seeds", "said"),
    [
        (6, 6, "supported"),
        (3, 3, "undecided"),
        (5, 6, "undecided"),
        (0, 6, "not supported"),
        (1, 1, "undecided"),
    ],
)
def test_collapse_is_a_share_of_runs_with_its_exact_interval(
    made_up: MakeUp, collapsed: int, seeds: int, said: str
) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        return {"train": {"nc1": 0.05 if seed < collapsed else 0.051}}

    share = verdicts(made_up(values, imbalances=("balanced",), seeds=seeds)).collapse[0]
    assert (share.collapsed, share.n) == (collapsed, seeds)
    assert share.word == said


def test_a_run_that_missed_its_fixed_points_is_no_run_that_collapsed_or_not(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        missed = 0.002 * (seed < 2)
        return {
            "solver": replace(SOLVER, unconverged_worst_epoch=missed) if refinement == "equilibrium" else None
        }

    shares = verdicts(made_up(values, imbalances=("balanced",), seeds=6)).collapse
    assert [(share.refinement, share.n) for share in shares] == [("equilibrium", 4), ("explicit", 6)]


def test_of_a_long_tail_the_minority_are_its_few_classes(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        better = (0.05 + NOISE[seed]) * (refinement == "equilibrium")
        return {
            "class_counts": (100, 50, 30, 18, 11, 7, 4, 2, 2, 1),
            "test": {"accuracy_many": 0.9, "accuracy_few": 0.3 + better},
        }

    found = verdicts(made_up(values, imbalances=("long_tailed_r100",))).single
    (verdict,) = (verdict for verdict in found if verdict.claim.key == "minority_accuracy")
    assert verdict.comparison.effect == pytest.approx(0.05 + sum(NOISE[:3]) / 3)
    assert verdict.word == "supported"


def test_a_run_whose_training_error_never_was_0_did_not_collapse(made_up: MakeUp) -> None:
    study = made_up(
        lambda *cell: {"terminal_epoch": None, "train": {"nc1": 0.0}}, imbalances=("balanced",), seeds=6
    )
    share = verdicts(study).collapse[0]
    assert share.collapsed == 0
    assert share.word == "not supported"


def test_data_sets_are_not_pooled_but_counted_together_for_collapse(made_up: MakeUp) -> None:
    parts = [
        made_up(shifted(-0.05), imbalances=("balanced", "step_ka3_r10"), axes={"loss": name})
        for name in ("ce", "mse")
    ]
    study = Study("both", "", parts[0].runs + parts[1].runs, (), parts[0].planned + parts[1].planned)
    found = verdicts(study)
    assert [verdict.group for verdict in found.claims[0]] == ["all together", "loss ce", "loss mse"]
    assert found.claims[0][0].settings == 2
    assert found.claims[0][0].comparison.n == 3
    assert found.collapse[0].n == 6
    assert found.collapse[0].word == "supported"


def test_without_both_refinements_there_is_no_verdict(made_up: MakeUp) -> None:
    found = verdicts(made_up(refinements=("equilibrium",)))
    assert (found.collapse, found.pooled, found.single) == ((), (), ())


def test_any_labels_of_the_refinement_are_compared(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        if refinement not in ("jfb", "ift"):
            return {}
        return {"solver": SOLVER, "test": {"accuracy_minority": 0.7 + 0.001 * seed}}

    found = verdicts(made_up(values, refinements=("jfb", "once", "tied", "ift")))
    assert list(dict.fromkeys(verdict.group for verdict in found.single)) == ["jfb", "ift"]
    minority = [verdict for verdict in found.pooled if verdict.claim.key == "minority_accuracy"]
    assert all(verdict.word == "not supported" for verdict in minority)
    assert minority[1].comparison.effect == pytest.approx(0.701 - 0.8)


def test_a_second_deq_of_one_setting_does_not_count_it_twice(made_up: MakeUp) -> None:
    study = made_up(
        refinements=("explicit", "equilibrium", "light"), imbalances=("step_ka3_r10", "step_ka5_r10")
    )
    light = {run.name: run.refinement == "light" for run in study.runs}
    kept = [run for run in study.runs if not light[run.name] or run.axes["imbalance"] == "step_ka3_r10"]
    runs = tuple(replace(run, solver=SOLVER) if light[run.name] else run for run in kept)
    found = verdicts(replace(study, runs=runs, planned=tuple(run.name for run in runs)))
    groups = {verdict.group: verdict for verdict in found.claims[0]}
    assert groups["all together"].settings == 2
    assert groups["all together"].deq == "equilibrium"


def test_a_run_that_missed_fixed_points_enters_no_verdict(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        missed = 0.0011 if seed == 1 else 0.0
        return (
            {"solver": replace(SOLVER, unconverged_worst_epoch=missed)} if refinement == "equilibrium" else {}
        )

    found = verdicts(made_up(values))
    assert list(found.single[0].comparison.differences) == ["0", "2"]
    assert found.single[0].comparison.unpaired == ("1",)
    row = records(found)[-1]
    assert (row["seeds"], row["seeds_without_partner"]) == ("0 2", "1")
    assert row["compared"] == "equilibrium with explicit"


def test_an_undecided_claim_says_how_many_seeds_would_decide_it(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        shift = (0.0, 0.02, 0.04)[seed] if refinement == "equilibrium" else 0.0
        return {"test": {"accuracy_minority": 0.5 + shift}}

    found = verdicts(made_up(values))
    claim = next(verdict for verdict in found.pooled if verdict.claim.key == "minority_accuracy")
    assert (claim.word, claim.needed) == ("undecided", 10)  # an effect of one standard deviation


TRAIN = ("nc1", "nc2_etf_means", "nc3", "loss")


def test_an_undecided_claim_needs_more_seeds_than_it_has(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        if refinement != "equilibrium":
            return {"test": {"accuracy_minority": 0.5}, "train": dict.fromkeys(TRAIN, 1.0)}
        noise = (-1.0, 0.4, 1.3, -0.2, 0.9, -1.4)[seed]
        return {
            "test": {"accuracy_minority": 0.53 + 0.018 * noise},
            "train": dict.fromkeys(TRAIN, math.exp(noise)),
        }

    found = verdicts(made_up(values, imbalances=("step_ka3_r10",), seeds=6))
    tested = [verdict for verdict in found.pooled if not math.isnan(verdict.comparison.p)]
    assert any(verdict.comparison.p < 0.05 < verdict.adjusted for verdict in tested)
    assert all(verdict.needed is None or verdict.needed > verdict.comparison.n for verdict in tested)


def test_records_have_one_shape_and_only_numbers_that_json_knows(made_up: MakeUp) -> None:
    rows = records(verdicts(made_up(imbalances=("balanced", "step_ka3_r10"), seeds=1)))
    assert len({tuple(row) for row in rows}) == 1
    assert all(value == value for row in rows for value in row.values())
    assert {row["verdict"] for row in rows} == {"undecided", None}
