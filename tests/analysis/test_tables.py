"""The tables: every setting in its place, both refinements, and what is missing."""

import math
from collections.abc import Callable

import pytest

from deq_collapse.analysis.measures import FAMILIES, Family, logged
from deq_collapse.analysis.outcomes import outcome_table
from deq_collapse.analysis.tables import Entry, Table, comparison_tables, family_table
from deq_collapse.runs.study import Study

MakeUp = Callable[..., Study]
Values = Callable[[str, str, int], dict]
FAMILY = {family.name: family for family in FAMILIES}


def by_title(table: Table, line: int) -> dict[str, Entry]:
    return {entry.measure.title: entry for entry in table.lines[line].entries}


def test_refinements_stand_beside_each_other_in_the_columns_of_their_family(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        return {"test": {"accuracy_minority": 0.5 + 0.1 * seed}}

    table = family_table(made_up(values), FAMILY["accuracy_step"])
    assert [measure.title for measure in table.measures] == ["overall", "majority", "minority"]


def test_a_span_of_decades_is_compared_as_a_factor(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        return {"train": {"nc1": 10.0**-seed * (0.5 if refinement == "equilibrium" else 1.0)}}

    entry = by_title(family_table(made_up(values), FAMILY["collapse_train"]), 0)["NC1"]
    assert entry.comparison.effect == pytest.approx(0.5)


def test_p_values_are_corrected_over_the_whole_table(made_up: MakeUp, noisy: Values) -> None:
    table = family_table(made_up(noisy, imbalances=("balanced", "step_ka3_r10")), FAMILY["collapse_train"])
    p = [e.comparison.p for line in table.lines for e in line.entries if not math.isnan(e.comparison.p)]
    assert table.tests == len(p) == 2
    smallest = min((e for line in table.lines for e in line.entries), key=lambda e: e.comparison.p)
    assert smallest.adjusted == pytest.approx(min(1.0, 2 * smallest.comparison.p))


def test_a_setting_without_runs_keeps_its_line(made_up: MakeUp, noisy: Values) -> None:
    missing = (
        "step_ka3_r10-equilibrium-1",
        *(f"step_ka3_r50-{r}-{s}" for r in ("explicit", "equilibrium") for s in range(3)),
    )
    study = made_up(noisy, imbalances=("step_ka3_r10", "step_ka3_r50"), missing=missing)
    table = family_table(study, FAMILY["collapse_train"])
    assert table.lines[0].entries[0].comparison.n == 2
    assert all(slot.missing == 3 for slot in table.lines[1].slots.values())
    places = outcome_table(study)
    assert [[len(place) for place in row.runs] for block in places.blocks for row in block] == [
        [1, 1, 1],
        [1, 0, 1],
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_a_study_of_one_refinement_has_values_and_no_tests(made_up: MakeUp, noisy: Values) -> None:
    tables = comparison_tables(made_up(noisy, refinements=("explicit",)))
    assert tables
    assert all(table.others == () and table.tests == 0 for table in tables)


def test_every_other_refinement_has_its_own_line(made_up: MakeUp, noisy: Values) -> None:
    study = made_up(noisy, refinements=("explicit", "tied", "equilibrium"))
    table = family_table(study, FAMILY["collapse_train"])
    assert [line.refinement for line in table.lines] == ["tied", "equilibrium"]


def test_nothing_is_compared_where_one_side_never_reached_the_terminal_phase(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        never = refinement == "explicit" or seed == 0
        return {"terminal_epoch": None if never else 3 + seed}

    entry = by_title(family_table(made_up(values), FAMILY["terminal"]), 0)["first epoch"]
    assert entry.comparison.n == 0


def test_balanced_accuracy_stands_only_where_it_differs(made_up: MakeUp, noisy: Values) -> None:
    def same(imbalance: str, refinement: str, seed: int) -> dict:
        return {"test": {"balanced_accuracy": 0.9}}

    titles = [
        [measure.title for measure in family_table(made_up(values), FAMILY["accuracy_step"]).measures]
        for values in (same, noisy)
    ]
    assert "balanced" not in titles[0]
    assert "balanced" in titles[1]


def test_runs_without_seeds_pair_only_if_there_is_one_of_each(made_up: MakeUp, noisy: Values) -> None:
    def unnamed(seeds: int) -> Study:
        study = made_up(noisy, seeds=seeds)
        for run in study.runs:
            run.axes.pop("seed")
        return study

    family = Family("f", "f", "", (logged("train", "nc1", "NC1"),))
    assert family_table(unnamed(1), family).lines[0].entries[0].comparison.n == 1
    assert family_table(unnamed(2), family).lines[0].entries[0].comparison.n == 0
