"""What the report promises: complete, honest, self-contained, deterministic, never half-written."""

import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from deq_collapse.analysis.measures import logged
from deq_collapse.analysis.tables import comparison_tables
from deq_collapse.analysis.verdicts import CLAIMS, RULE
from deq_collapse.cli import main
from deq_collapse.errors import UserError
from deq_collapse.report import page, sections
from deq_collapse.report.costs import cost_table
from deq_collapse.report.entries import baseline_text
from deq_collapse.report.page import write_report
from deq_collapse.report.wording import magnitude, number, over_seeds, percent, solver_warning, summarised
from deq_collapse.runs.study import read_study

MakeStudy = Callable[..., Path]


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds and have tests of their own."""
    monkeypatch.setattr(sections, "SECTIONS", ())


class _References(HTMLParser):
    """Every address that a browser would load or that a reader could follow, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
                (self.links if tag == "a" else self.loaded).append(value or "")


def _text(page: str) -> str:
    body = page[page.index("<body>") :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", re.sub(r"<svg.*?</svg>", "", body, flags=re.DOTALL)))


def test_the_page_loads_nothing_and_links_to_the_run_folders(make_study: MakeStudy) -> None:
    study = make_study(imbalances=("step_ka3_r10",), refinements=("equilibrium",))
    path = write_report(study)
    assert path == study / "report.html"
    page = path.read_text(encoding="utf-8")
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    references = _References(page)
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in references.loaded)
    assert any(address.startswith("data:") for address in references.loaded)
    runs = {f"{run.name}/" for run in read_study(study).runs}
    assert runs < set(references.links)
    parts = {address for address in references.links if address.startswith("#")}
    assert parts
    assert all(f'id="{address[1:]}"' in page for address in parts)
    files = set(references.links) - parts
    assert files - runs <= {f"tables/{path.name}" for path in (study / "tables").iterdir()}
    assert all((study / address).exists() for address in files)


def test_curves_come_first_then_tables_then_rules(make_study: MakeStudy) -> None:
    page = write_report(make_study(seeds=2)).read_text(encoding="utf-8")
    order = ("figures-1", "verdicts", "tables", "every", "rules", "ran")
    found = [page.index(f'id="{part}"') for part in order]
    assert found == sorted(found)
    assert page.count("<details") == page.count("</details>")


@pytest.mark.usefixtures("without_figures")
def test_every_run_and_its_numbers_appear(make_study: MakeStudy) -> None:
    study = make_study()
    page = write_report(study).read_text(encoding="utf-8")
    text = _text(page)
    for run in read_study(study).runs:
        assert f'href="{run.name}/"' in page
        assert f"error 0 from epoch {run.terminal_epoch}, NC1 {number(run.train['nc1'])}, NC2 " in text
        assert percent(run.test["accuracy"]).rstrip("%") in text
        assert all(number(value) in text for values in (run.train, run.test) for value in values.values())
        assert f"{run.parameters['total']:,}" in text
    assert "deq-collapse study run conf/study/demo.yaml" in text
    assert "0123abc" in text
    assert "torch 2.11.0" in text
    assert "139, 139, 139, 14" in text


@pytest.mark.usefixtures("without_figures")
def test_not_collapsed_is_said_of_exactly_the_runs_that_did_not(make_study: MakeStudy) -> None:
    def edit(results: dict[str, Any]) -> None:
        ends = [(0.051, 0.3, 9), (0.05, 0.3, 9), (0.01, 0.3, None), (0.04, 0.31, 9)]
        for record, (nc1, nc2, terminal) in zip(results["runs"], ends, strict=True):
            record.update(terminal_epoch=terminal)
            record["train"] |= {"nc1": nc1, "nc2_etf_means": nc2, "nc3": 0.125}

    study = make_study(imbalances=("balanced",), seeds=2, edit=edit)
    page = write_report(study).read_text(encoding="utf-8")
    places = re.findall(
        r'<span class="(not-collapsed|collapsed|variability-only)"><a href="([^/]*)/">(.*?)</a></span>'
        r" <small>(.*?)<",
        page,
    )
    names = [run.name for run in read_study(study).runs]
    assert [name for _, name, *_ in places] == names
    assert [words for *_, words, _ in places] == [
        "not collapsed",
        "collapsed",
        "not collapsed",
        "variability only",
    ]
    assert "1 of 4 runs collapsed" in page
    assert "In 1 more within-class variability alone did" in page
    assert places[3][-1] == "error 0 from epoch 9, NC1 0.0400, NC2 0.310, NC3 0.125"
    assert places[2][-1] == "error never 0, NC1 0.0100, NC2 0.300, NC3 0.125"


@pytest.mark.parametrize(("share", "warned"), [(0.001, False), (0.0101, True)])
def test_missed_fixed_points_are_warned_of_above_one_in_a_thousand(
    make_study: MakeStudy, share: float, warned: bool
) -> None:
    def edit(results: dict[str, Any]) -> None:
        results["runs"][0]["solver"]["unconverged_worst_epoch"] = share

    study = make_study(imbalances=("balanced",), refinements=("equilibrium",), edit=edit)
    warning = solver_warning(read_study(study).runs[0])
    assert (warning is not None) is warned
    assert warning is None or "1.01% of the training samples missed the solver's tolerance" in warning


@pytest.mark.usefixtures("without_figures")
def test_a_run_that_ended_in_unrolled_pre_training_is_told_of(make_study: MakeStudy) -> None:
    def edit(results: dict[str, Any]) -> None:
        solver = results["runs"][0]["solver"]
        solver |= dict.fromkeys(("residual", "unconverged", "unconverged_worst_epoch", "forward_evaluations"))

    study = make_study(imbalances=("balanced",), refinements=("equilibrium",), edit=edit)
    text = _text(write_report(study).read_text(encoding="utf-8"))
    assert "it ended before it solved for any fixed point, in unrolled pre-training." in text


def test_test_images_without_fixed_points_are_warned_of(make_study: MakeStudy) -> None:
    def edit(results: dict[str, Any]) -> None:
        results["runs"][0]["test"]["unconverged"] = 0.0017

    study = make_study(imbalances=("balanced",), refinements=("equilibrium",), edit=edit)
    warning = solver_warning(read_study(study).runs[0])
    assert warning is not None
    assert "where the test split was measured, 0.17% of its images missed the tolerance" in warning


@pytest.mark.parametrize(("share", "warned"), [(0.001, False), (0.0101, True), (None, False)])
def test_missed_gradients_are_warned_of_above_one_in_a_thousand(
    make_study: MakeStudy, share: float | None, warned: bool
) -> None:
    def edit(results: dict[str, Any]) -> None:
        results["runs"][0]["solver"] |= {
            "backward_tolerance": 1e-4,
            "backward_unconverged": 0.0,
            "backward_unconverged_worst_epoch": share,
        }

    study = make_study(imbalances=("balanced",), refinements=("equilibrium",), edit=edit)
    warning = solver_warning(read_study(study).runs[0])
    assert (warning is not None) is warned
    assert warning is None or "the gradients of 1.01% of the training samples missed" in warning


@pytest.mark.usefixtures("without_figures")
def test_warnings_stand_on_the_page_and_the_parameters_are_compared(make_study: MakeStudy) -> None:
    def edit(results: dict[str, Any]) -> None:
        results["runs"][0]["parameters"]["total"] = 1000
        results["runs"][1]["parameters"]["total"] = 980
        results["runs"][1]["solver"]["unconverged_worst_epoch"] = 0.25

    study = make_study(imbalances=("balanced",), edit=edit)
    text = _text(write_report(study).read_text(encoding="utf-8"))
    assert "Warning: balanced-equilibrium-seed0: in its worst epoch 25.00% of" in text
    assert "differ by more than 1%: 1,000 (explicit), 980 (equilibrium)" in text


def test_the_same_study_gives_the_same_bytes(make_study: MakeStudy) -> None:
    study = make_study(imbalances=("step_ka3_r10",), refinements=("equilibrium",))
    first = write_report(study).read_bytes()
    assert write_report(study).read_bytes() == first


@pytest.mark.usefixtures("without_figures")
def test_an_error_leaves_the_old_report_and_nothing_else(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(imbalances=("balanced",), refinements=("explicit",))
    path = study / "report.html"
    path.write_text("old")
    before = sorted(path for path in study.rglob("*") if path.is_file())

    def full_disk(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "render", lambda *_: "new")
    monkeypatch.setattr(page, "write_tables", lambda study, folder: folder)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        write_report(study)
    assert path.read_text() == "old"
    assert sorted(path for path in study.rglob("*") if path.is_file()) == before


@pytest.mark.usefixtures("without_figures")
def test_a_broken_study_leaves_the_old_report(make_study: MakeStudy) -> None:
    study = make_study()
    (study / "report.html").write_text("old")
    (study / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json"):
        write_report(study)
    assert (study / "report.html").read_text() == "old"


@pytest.mark.usefixtures("without_figures")
def test_several_seeds_give_mean_and_deviation(make_study: MakeStudy) -> None:
    study = make_study(imbalances=("balanced",), refinements=("explicit",), seeds=3)
    runs = read_study(study).runs
    mean, deviation = summarised([run.train["nc1"] for run in runs], logged("train", "nc1", "NC1", "factor"))
    text = _text(write_report(study).read_text(encoding="utf-8"))
    assert f"{mean} {deviation}" in text
    assert over_seeds([run.train["nc1"] for run in runs]) in text
    assert "balanced n = 3" in text


@pytest.mark.usefixtures("without_figures")
def test_a_single_run_without_partner_has_no_verdict(make_study: MakeStudy) -> None:
    study = make_study(imbalances=("balanced",), refinements=("equilibrium",))
    page = write_report(study).read_text(encoding="utf-8")
    text = _text(page)
    assert "Verdicts" not in text
    assert "difference</th>" not in page
    assert "minority" not in text.lower()


@pytest.mark.usefixtures("without_figures")
def test_verdicts_stand_on_the_page_with_their_rule(make_study: MakeStudy) -> None:
    page = write_report(make_study(seeds=2)).read_text(encoding="utf-8")
    text = _text(page)
    assert RULE in text
    for claim in CLAIMS:
        if claim.key != "lower_loss":
            assert claim.sentence in text
    assert page.count('<span class="verdict ') == len(CLAIMS) + 1


@pytest.mark.usefixtures("without_figures")
def test_what_the_grid_lacks_is_missing_on_the_page(make_study: MakeStudy) -> None:
    def edit(results: dict[str, Any]) -> None:
        results["cells"] = [{"axes": run["axes"]} for run in results["runs"]]
        results["runs"] = results["runs"][:3]

    page = write_report(make_study(edit=edit)).read_text(encoding="utf-8")
    text = _text(page)
    assert "3 of the grid’s 4 runs are finished" in text
    assert '<td class="absent">missing</td>' in page
    assert "explicit 1 of 1, DEQ 0 of 1" in text


@pytest.mark.usefixtures("without_figures")
def test_failed_runs_are_listed_with_their_reason_even_if_none_finished(make_study: MakeStudy) -> None:
    def edit(results: dict[str, Any]) -> None:
        results["runs"] = []
        results["failed"] = [{"name": "balanced-explicit-seed0", "reason": "the loss is <nan>"}]

    page = write_report(make_study(edit=edit)).read_text(encoding="utf-8")
    assert "balanced-explicit-seed0" in page
    assert "the loss is &lt;nan&gt;" in page
    assert "No run of this study finished" in page


def test_a_long_tailed_run_shows_the_accuracies_of_its_groups(make_study: MakeStudy) -> None:
    def edit(results: dict[str, Any]) -> None:
        for run in results["runs"]:
            run["class_counts"] = [200, 150, 100, 80, 60, 40, 30, 20, 10, 5]
            run["majority"] = None
            run["test"] |= {"accuracy_many": 0.91, "accuracy_few": 0.345}

    study = read_study(make_study(imbalances=("long_tailed_r100",), edit=edit))
    table = next(table for table in comparison_tables(study) if table.family.name == "accuracy_long_tailed")
    assert [measure.title for measure in table.measures] == ["overall", "many", "few"]
    assert [baseline_text(entry)[0] for entry in table.lines[0].entries[1:]] == ["91.00", "34.50"]


def test_costs_leave_out_columns_that_no_run_fills(make_study: MakeStudy) -> None:
    table = cost_table(read_study(make_study(imbalances=("balanced",), refinements=("explicit",))))
    assert not any(group == "Solver" for group, _ in table.groups)
    assert sum(columns for _, columns in table.groups) == len(table.titles)
    assert all(len(row.texts) == len(table.titles) for block in table.blocks for row in block)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (0.16, "0.160"),
        (-0.111, "−0.111"),
        (86.25, "86.2"),
        (999.4, "999"),
        (999.7, "1,000"),
        (12345, "12,345"),
        (1.23e-5, "1.2×10⁻⁵"),
        (float("nan"), "–"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_words_for_values() -> None:
    assert percent(0.95283) == "95.28%"
    assert magnitude(1_234_567) == "1.23 M"
    assert over_seeds([1.0, 3.0]) == "2.0 ± 1.4"
    assert over_seeds([None, float("nan")]) == "–"
    assert over_seeds([None, 2.5]) == "2.50"


def test_what_theory_compare_left_stands_in_the_report(make_study: MakeStudy) -> None:
    pytest.importorskip("cvxpy")
    study = make_study(imbalances=("step_ka3_r10",))
    write_report(study)
    assert "Beside the theory" not in (study / "report.html").read_text()
    assert main(["theory", "compare", str(study / "step_ka3_r10-equilibrium-seed0")]) == 0
    page = (study / "report.html").read_text()
    assert "Beside the theory" in page
    assert "Gram matrices beside the theory, step_ka3_r10-equilibrium-seed0" in page
    assert "Gram matrices beside the theory, step_ka3_r10-explicit-seed0" not in page


@pytest.mark.usefixtures("without_figures")
def test_what_adds_what_stands_on_the_page_and_in_a_file(make_study: MakeStudy) -> None:
    contrast = {"name": "kind", "axis": "refinement", "before": "explicit", "after": "equilibrium"}
    study = make_study(seeds=3, edit=lambda results: results.update(contrasts=[contrast]))
    text = _text(write_report(study).read_text(encoding="utf-8"))
    assert "What adds what" in text
    assert "explicit → DEQ" in text
    assert "At equal training loss" in text
    assert "Effects epoch by epoch are drawn above" in text
    for file in ("effects.csv", "effects_equal_loss.csv", "effects_by_epoch.csv"):
        rows = pd.read_csv(study / "tables" / file)
        assert set(rows["contrast"]) == {"kind"}
        assert set(rows["imbalance"]) == {"balanced", "step, K_A=3, R=10"}
        assert (rows["pairs"] == 3).all()


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("label", ["once", "tied", "untied", "of my own"])
def test_a_page_takes_any_label_of_the_refinement(make_study: MakeStudy, label: str) -> None:
    def edit(results: dict[str, Any]) -> None:
        results["runs"][0]["axes"]["refinement"] = label

    text = _text(write_report(make_study(imbalances=("balanced",), edit=edit)).read_text(encoding="utf-8"))
    assert label in text
