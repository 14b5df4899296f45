"""Runs that ended before their plan are marked, and compared only with runs that trained equally long."""

from dataclasses import replace

import pytest

from deq_collapse.analysis.measures import FAMILIES
from deq_collapse.analysis.tables import family_table
from deq_collapse.analysis.verdicts import verdicts
from deq_collapse.report.entries import runs_text
from deq_collapse.report.wording import end_warning, headline, outcome
from deq_collapse.runs.record import End

COLLAPSE = next(family for family in FAMILIES if family.name == "collapse_train")
CUT = {"epochs": 7, "steps": 70, "end": End("time", 7, planned_epochs=10)}
WHOLE = {"end": End("epochs", 10, planned_epochs=10)}


def lines(made_up, cut, imbalance="step_ka3_r10"):
    study = made_up(
        lambda _, refinement, seed: CUT if (refinement, seed) in cut else WHOLE, imbalances=(imbalance,)
    )
    (line,) = family_table(study, COLLAPSE).lines
    return study, line


def test_a_pair_of_which_one_run_ended_early_is_not_compared(made_up):
    study, line = lines(made_up, {("explicit", 0)})
    assert set(line.entries[0].comparison.differences) == {"1", "2"}
    assert all(verdict.comparison.n == 2 for verdict in verdicts(study).single)
    assert runs_text(line) == "n = 3, ‡ 1"
    assert "1 runs, marked ‡" in headline(study)


def test_a_pair_that_trained_equally_long_is_compared(made_up):
    _, line = lines(made_up, {("explicit", 0), ("equilibrium", 0)})
    assert set(line.entries[0].comparison.differences) == {"0", "1", "2"}
    assert runs_text(line) == "n = 3, ‡ 2"


def test_as_many_epochs_of_fewer_steps_are_not_as_long(made_up):
    """A batch size of its own, or gradients accumulated, make other steps of the same epochs."""
    cut, fewer, whole = made_up(lambda *cell: (CUT, CUT | {"steps": 69}, WHOLE)[cell[2]]).runs[:3]
    assert cut.as_long(replace(cut, name="another"))
    assert not cut.as_long(fewer)
    assert not cut.as_long(whole)
    assert whole.as_long(replace(whole, epochs=9, steps=9))  # each did what it planned


def test_a_run_that_ended_early_counts_for_no_share_of_collapsed_runs(made_up):
    study, _ = lines(made_up, {("equilibrium", 0)}, "balanced")
    assert [(share.refinement, share.n) for share in verdicts(study).collapse] == [
        ("equilibrium", 2),
        ("explicit", 3),
    ]


def test_the_run_itself_says_it(made_up):
    study, _ = lines(made_up, {("explicit", 0)})
    cut, whole = study.runs[0], study.runs[1]
    assert end_warning(cut) == "it ended after 7 of 10 epochs: its time was up."
    assert outcome(cut)[1].endswith("‡")
    assert end_warning(whole) is None


@pytest.mark.parametrize(
    ("end", "complete"),
    [
        (None, True),
        (End("epochs", 10, 10), True),
        (End("steps", 10, 10, 100), True),
        (End("steps", 3, None, 100), True),
        (End("steps", 3, 10, 100), False),
        (End("early stopping", 3, None), False),
    ],
)
def test_complete_is_what_did_all_that_was_planned(made_up, end, complete):
    run = made_up(lambda *cell: {"end": end}).runs[0]
    assert run.complete is complete
