"""The tables: every setting in its place, both refinements, what is missing, and files that say the same."""

import json
import math
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from deq_collapse.analysis.measures import FAMILIES, Family, logged
from deq_collapse.analysis.outcomes import outcome_table
from deq_collapse.analysis.settings import settings
from deq_collapse.analysis.tables import Table, comparison_tables, family_table
from deq_collapse.report.entries import baseline_text, effect_text, other_text, runs_text
from deq_collapse.report.latex import escape
from deq_collapse.report.table_files import write_tables
from deq_collapse.report.wording import summarised, told_effect, told_p
from deq_collapse.runs.study import Study, call_data_by_name

MakeUp = Callable[..., Study]
FAMILY = {family.name: family for family in FAMILIES}


def noisy(imbalance: str, refinement: str, seed: int) -> dict:
    """Different for every run; DEQ is a little better."""
    rng = np.random.default_rng([len(imbalance), refinement == "explicit", seed])
    better = refinement == "equilibrium"
    return {
        "train": {"nc1": 0.01 * math.exp(0.3 * rng.standard_normal() - better)},
        "test": {"accuracy": 0.9 + 0.01 * rng.standard_normal() + 0.02 * better, "balanced_accuracy": 0.5},
    }


def by_title(table: Table, line: int) -> dict:
    return {entry.measure.title: entry for entry in table.lines[line].entries}


def test_refinements_stand_beside_each_other_with_their_paired_difference(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        return {
            "test": {"accuracy_minority": 0.5 + 0.1 * seed + 0.01 * (seed + 1) * (refinement != "explicit")}
        }

    table = family_table(made_up(values), FAMILY["accuracy_step"])
    entry = by_title(table, 0)["minority"]
    assert baseline_text(entry) == ("60.00", "± 10.00")
    assert other_text(entry) == ("62.00", "± 11.00")
    assert effect_text(entry) == ("+2.00", "[−0.48, 4.48]")
    assert runs_text(table.lines[0]) == "n = 3"
    assert [measure.title for measure in table.measures] == ["overall", "majority", "minority"]


def test_a_span_of_decades_is_told_as_a_factor(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        return {"train": {"nc1": 10.0**-seed * (0.5 if refinement == "equilibrium" else 1.0)}}

    entry = by_title(family_table(made_up(values), FAMILY["collapse_train"]), 0)["NC1"]
    assert entry.comparison.effect == pytest.approx(0.5)
    assert effect_text(entry)[0] == "×0.500"


def test_p_values_are_corrected_over_the_whole_table(made_up: MakeUp) -> None:
    table = family_table(made_up(noisy, imbalances=("balanced", "step_ka3_r10")), FAMILY["collapse_train"])
    p = [e.comparison.p for line in table.lines for e in line.entries if not math.isnan(e.comparison.p)]
    assert table.tests == len(p) == 2
    smallest = min((e for line in table.lines for e in line.entries), key=lambda e: e.comparison.p)
    assert smallest.adjusted == pytest.approx(min(1.0, 2 * smallest.comparison.p))


def test_a_setting_without_runs_keeps_its_line(made_up: MakeUp) -> None:
    missing = (
        "step_ka3_r10-equilibrium-1",
        *(f"step_ka3_r50-{r}-{s}" for r in ("explicit", "equilibrium") for s in range(3)),
    )
    study = made_up(noisy, imbalances=("step_ka3_r10", "step_ka3_r50"), missing=missing)
    table = family_table(study, FAMILY["collapse_train"])
    assert [runs_text(line) for line in table.lines] == ["explicit 3 of 3, DEQ 2 of 3", "n = 0 of 3"]
    assert table.lines[0].entries[0].comparison.n == 2
    assert all(slot.missing == 3 for slot in table.lines[1].slots.values())
    places = outcome_table(study)
    assert [[len(place) for place in row.runs] for block in places.blocks for row in block] == [
        [1, 1, 1],
        [1, 0, 1],
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_a_study_of_one_refinement_has_values_and_no_tests(made_up: MakeUp) -> None:
    tables = comparison_tables(made_up(noisy, refinements=("explicit",)))
    assert tables
    assert all(table.others == () and table.tests == 0 for table in tables)


def test_every_other_refinement_has_its_own_line(made_up: MakeUp) -> None:
    study = made_up(noisy, refinements=("explicit", "tied", "equilibrium"))
    table = family_table(study, FAMILY["collapse_train"])
    assert [line.refinement for line in table.lines] == ["tied", "equilibrium"]


def test_the_terminal_phase_tells_who_never_reached_it(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        never = refinement == "explicit" or seed == 0
        return {"terminal_epoch": None if never else 3 + seed}

    entry = by_title(family_table(made_up(values), FAMILY["terminal"]), 0)["first epoch"]
    assert baseline_text(entry) == ("never", "")
    assert other_text(entry) == ("4.50", "± 0.71 1 never")
    assert entry.comparison.n == 0


def test_balanced_accuracy_stands_only_where_it_differs(made_up: MakeUp) -> None:
    def same(imbalance: str, refinement: str, seed: int) -> dict:
        return {"test": {"balanced_accuracy": 0.9}}

    titles = [
        [measure.title for measure in family_table(made_up(values), FAMILY["accuracy_step"]).measures]
        for values in (same, noisy)
    ]
    assert "balanced" not in titles[0]
    assert "balanced" in titles[1]


def test_settings_are_grouped_by_what_is_no_imbalance(made_up: MakeUp) -> None:
    axes = [{"imbalance": i, "loss": loss} for i in ("balanced", "step_ka3_r10") for loss in ("ce", "mse")]
    parts = [made_up(axes=entry, imbalances=(entry["imbalance"],)) for entry in axes]
    study = Study("four", "", tuple(run for part in parts for run in part.runs), ())
    assert [(setting.heading, setting.label) for setting in settings(study)] == [
        ("loss ce", "balanced"),
        ("loss ce", "step, K_A=3, R=10"),
        ("loss mse", "balanced"),
        ("loss mse", "step, K_A=3, R=10"),
    ]


def test_a_data_set_is_called_as_it_calls_itself(made_up: MakeUp) -> None:
    study = made_up(imbalances=("balanced", "step_ka3_r10"), axes={"dataset": "d", "loss": "mse"})
    study = replace(study, runs=study.runs[:-1])  # what is only planned is called so too
    assert {setting.heading for setting in settings(call_data_by_name(study))} == {"digits; loss mse"}


def test_labels_of_one_data_set_stay_apart(made_up: MakeUp) -> None:
    small, large = (made_up(axes={"data": name}) for name in ("small", "large"))
    both = call_data_by_name(replace(small, runs=small.runs + large.runs))
    assert {setting.label for setting in settings(both)} == {
        "small; step, K_A=3, R=10",
        "large; step, K_A=3, R=10",
    }


def test_a_group_of_one_needs_no_heading(made_up: MakeUp) -> None:
    (setting,) = settings(made_up(axes={"loss": "mse"}))
    assert (setting.group, setting.heading) == ("loss mse", "")
    assert setting.label == setting.name == "loss mse; step, K_A=3, R=10"


def test_runs_without_seeds_pair_only_if_there_is_one_of_each(made_up: MakeUp) -> None:
    def unnamed(seeds: int) -> Study:
        study = made_up(noisy, seeds=seeds)
        for run in study.runs:
            run.axes.pop("seed")
        return study

    family = Family("f", "f", "", (logged("train", "nc1", "NC1"),))
    assert family_table(unnamed(1), family).lines[0].entries[0].comparison.n == 1
    assert family_table(unnamed(2), family).lines[0].entries[0].comparison.n == 0


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0.5, 0.6], ("55.00", "± 7.07")),
        ([0.5], ("50.00", "")),
        ([0.5, 0.5], ("50.00", "± 0.00")),
        ([None, math.nan], ("–", "")),
        ([], ("–", "")),
    ],
)
def test_means_and_deviations_of_shares(values: list[float | None], told: tuple[str, str]) -> None:
    assert summarised(values, logged("test", "accuracy", "overall", "share")) == told


def test_p_values_in_words() -> None:
    assert [told_p(p) for p in (0.0004, 0.0314, 1.0, math.nan)] == ["<0.001", "0.031", "1.000", "–"]


def test_files_hold_what_the_tables_say(made_up: MakeUp, tmp_path: Path) -> None:
    study = made_up(noisy, imbalances=("balanced", "step_ka3_r10"), missing=("balanced-explicit-2",))
    folder = write_tables(study, tmp_path)
    table = family_table(study, FAMILY["collapse_train"])
    frame = pd.read_csv(folder / "collapse_train.csv", dtype={"seeds_without_partner": str})
    row = frame[(frame["imbalance"] == "balanced") & (frame["measure"] == "train_nc1")].iloc[0]
    entry = by_title(table, 0)["NC1"]
    assert row["effect"] == pytest.approx(entry.comparison.effect)
    assert row["p_holm"] == pytest.approx(entry.adjusted)
    assert (row["pairs"], row["baseline_n"], row["other_n"]) == (2, 2, 3)
    assert row["seeds_without_partner"] == "2"
    runs = pd.read_csv(folder / "runs.csv")
    assert len(runs) == len(study.runs)
    assert runs["train_nc1"].tolist() == [run.train["nc1"] for run in study.runs]
    assert runs["collapsed"].all()
    named = {path.stem for path in folder.glob("*.tex")} - {"all"}
    inputs = (folder / "all.tex").read_text()
    assert all(f"\\input{{{name}}}" in inputs for name in named)
    assert "collapse_train_differences" in named
    records = json.loads((folder / "verdicts.json").read_text())
    assert len(records) == len(pd.read_csv(folder / "verdicts.csv"))


def test_the_same_study_gives_the_same_files(made_up: MakeUp, tmp_path: Path) -> None:
    folders = [write_tables(made_up(noisy), tmp_path / name) for name in "ab"]
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]


def test_a_study_without_runs_leaves_files_too(tmp_path: Path) -> None:
    folder = write_tables(Study("empty", "", (), ()), tmp_path)
    assert json.loads((folder / "verdicts.json").read_text()) == []


@examples(max_examples=50)
@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_escaped_text_means_nothing_to_latex(text: str) -> None:
    """What is left of a backslash is a command or an escaped character; braces balance."""
    made = escape(text)
    bare = made.replace(r"\textbackslash{}", "").replace(r"\textasciitilde{}", "")
    bare = bare.replace(r"\textasciicircum{}", "").replace(r"\textquotedbl{}", "").replace("$K_A$", "")
    for sign in ("$<$", "$>$", "$|$"):
        bare = bare.replace(sign, "")
    for character in "&%$#_{}":
        bare = bare.replace("\\" + character, "")
    assert not set(bare) & set("\\&%$#_{}~^<>|")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles_and_fits_its_page(made_up: MakeUp, tmp_path: Path) -> None:
    odd = {"dataset": "d", "loss": r"50%_of {all} & #1 \ ~ ^ $ <a|b> “x” — é"}
    study = made_up(noisy, imbalances=("balanced", "step_ka3_r10", "step_ka7_r100"), axes=odd)
    other = made_up(noisy, imbalances=("balanced", "step_ka3_r10"), axes={"dataset": "d", "loss": "mse"})
    both = Study("both", "", study.runs + other.runs, (), study.planned + other.planned)
    folder = write_tables(both, tmp_path)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = (folder / "all.log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert "Overfull" not in log


def test_effects_in_words(made_up: MakeUp) -> None:
    entry = by_title(family_table(made_up(seeds=1), FAMILY["collapse_train"]), 0)["NC2"]
    assert told_effect(entry.comparison, entry.measure) == ("0", "")
