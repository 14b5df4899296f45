"""The tables in words, and that the files say the same."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from deq_collapse.analysis.measures import FAMILIES, logged
from deq_collapse.analysis.pairing import Comparison
from deq_collapse.analysis.tables import Entry, Table, family_table
from deq_collapse.report.entries import baseline_text, effect_text, other_text, runs_text
from deq_collapse.report.latex import escape
from deq_collapse.report.table_files import write_tables
from deq_collapse.report.wording import summarised, told_effect, told_p
from deq_collapse.runs.study import Study

MakeUp = Callable[..., Study]
Values = Callable[[str, str, int], dict]
FAMILY = {family.name: family for family in FAMILIES}


def by_title(table: Table, line: int) -> dict[str, Entry]:
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


def test_a_span_of_decades_is_told_as_a_factor(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        return {"train": {"nc1": 10.0**-seed * (0.5 if refinement == "equilibrium" else 1.0)}}

    entry = by_title(family_table(made_up(values), FAMILY["collapse_train"]), 0)["NC1"]
    assert effect_text(entry)[0] == "×0.500"


def test_a_line_says_how_many_runs_it_is_of(made_up: MakeUp, noisy: Values) -> None:
    missing = (
        "step_ka3_r10-equilibrium-1",
        *(f"step_ka3_r50-{r}-{s}" for r in ("explicit", "equilibrium") for s in range(3)),
    )
    study = made_up(noisy, imbalances=("step_ka3_r10", "step_ka3_r50"), missing=missing)
    table = family_table(study, FAMILY["collapse_train"])
    assert [runs_text(line) for line in table.lines] == ["explicit 3 of 3, DEQ 2 of 3", "n = 0 of 3"]


def test_the_terminal_phase_tells_who_never_reached_it(made_up: MakeUp) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        never = refinement == "explicit" or seed == 0
        return {"terminal_epoch": None if never else 3 + seed}

    entry = by_title(family_table(made_up(values), FAMILY["terminal"]), 0)["first epoch"]
    assert baseline_text(entry) == ("never", "")
    assert other_text(entry) == ("4.50", "± 0.71 1 never")


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


def test_files_hold_what_the_tables_say(made_up: MakeUp, noisy: Values, tmp_path: Path) -> None:
    study = made_up(noisy, imbalances=("balanced", "step_ka3_r10"), missing=("balanced-explicit-3",), seeds=4)
    folder = write_tables(study, tmp_path)
    table = family_table(study, FAMILY["collapse_train"])
    frame = pd.read_csv(folder / "collapse_train.csv", dtype={"seeds_without_partner": str})
    row = frame[(frame["imbalance"] == "balanced") & (frame["measure"] == "train_nc1")].iloc[0]
    entry = by_title(table, 0)["NC1"]
    assert row["effect"] == pytest.approx(entry.comparison.effect)
    assert row["p_holm"] == pytest.approx(entry.adjusted)
    assert (row["pairs"], row["baseline_n"], row["other_n"]) == (3, 3, 4)
    assert row["seeds_without_partner"] == "3"
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


def test_the_same_study_gives_the_same_files(made_up: MakeUp, noisy: Values, tmp_path: Path) -> None:
    folders = [write_tables(made_up(noisy), tmp_path / name) for name in "ab"]
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]


def test_what_an_earlier_report_wrote_and_this_one_does_not_is_removed(
    made_up: MakeUp, noisy: Values, tmp_path: Path
) -> None:
    folder = write_tables(made_up(noisy, imbalances=("step_ka3_r10", "balanced")), tmp_path)
    (folder / "mine.csv").write_text("a,b\n")
    before = {path.name for path in folder.iterdir()}
    assert "accuracy_step.csv" in before
    write_tables(made_up(noisy, imbalances=("balanced",)), tmp_path)
    after = {path.name for path in folder.iterdir()}
    assert not {name for name in after if name.startswith("accuracy_step")}
    assert {"mine.csv", "accuracy_balanced.csv", "all.tex", "verdicts.json"} <= after < before


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
def test_latex_compiles_and_fits_its_page(made_up: MakeUp, noisy: Values, tmp_path: Path) -> None:
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


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 7), st.floats(1e-6, 7))
def test_no_factor_is_rounded_to_nothing(effect: float, below: float, above: float) -> None:
    middle = math.log(effect)
    factors = {"0": middle, "1": middle}
    comparison = Comparison(factors, (), True, middle - below, middle + above, 0.5, "")
    words = told_effect(comparison, logged("train", "nc1", "NC1", "factor"))
    numbers = re.findall(r"[0-9][0-9.,]*(?:×10[⁻⁰-⁹]+)?", " ".join(words).replace("×", " ", 1))
    assert len(numbers) == 3
    assert all(re.search("[1-9]", number) for number in numbers)


def test_effects_in_words(made_up: MakeUp) -> None:
    entry = by_title(family_table(made_up(seeds=1), FAMILY["collapse_train"]), 0)["NC2"]
    assert told_effect(entry.comparison, entry.measure) == ("0", "")
