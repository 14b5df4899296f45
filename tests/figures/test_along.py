"""The figure along the computation: what its lines hold, which runs share one, and where it stands."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deq_collapse.errors import UserError
from deq_collapse.figures.along import along_figure, along_scales, courses, lines
from deq_collapse.figures.files import write_figure
from deq_collapse.figures.style import svg
from deq_collapse.report.page import render
from deq_collapse.report.sections import figure_sections
from deq_collapse.runs.along import Course
from deq_collapse.runs.study import read_study

MakeStudy = Callable[..., Path]


def table(
    last: int, start: float = 1.0, metrics: tuple[str, ...] = ("nc1", "nc2_etf_means", "nc3")
) -> pd.DataFrame:
    """Values that halve at every evaluation up to the last; those of the test split are twice as large."""
    rows = [
        (split, k, "encoder" if k == 0 else "refinement", metric, start * factor * 0.5**k)
        for split, factor in (("train", 1), ("test", 2))
        for k in range(last + 1)
        for metric in metrics
    ]
    return pd.DataFrame(rows, columns=["split", "evaluations", "module", "metric", "value"])


def course(name: str, refinement: str, found: pd.DataFrame, **axes: str) -> Course:
    return Course(name, axes, refinement, axes.get("imbalance", "digits"), found)


@pytest.fixture
def with_tables(make_study: MakeStudy) -> Callable[..., Path]:
    """A study whose explicit runs have 2 evaluations and whose equilibria have 5."""

    def make(**options: object) -> Path:
        study = make_study(**options)
        for run in read_study(study).runs:
            last = 2 if run.refinement == "explicit" else 5
            table(last).to_csv(study / run.name / "along.csv", index=False)
        return study

    return make


def drawn(figure, gid):
    return [line for axes in figure.axes for line in axes.lines if line.get_gid() == gid]


def test_a_line_holds_the_values_of_the_table_and_is_carried_on_to_the_last_evaluation_of_all():
    found = lines([course("a", "explicit", table(2)), course("b", "equilibrium", table(5))])
    figure = along_figure(found, along_scales(found))
    (explicit,) = drawn(figure, "explicit-train-nc1")
    assert explicit.get_xdata().tolist() == [0, 1, 2]
    assert explicit.get_ydata().tolist() == [1, 0.5, 0.25]
    assert drawn(figure, "DEQ-test-nc1")[0].get_ydata()[-1] == 2 * 0.5**5
    carried = [line for line in figure.axes[0].lines if list(line.get_xdata()) == [2, 5]]
    assert sorted(line.get_ydata()[0] for line in carried) == [0.25, 0.5]


def test_seeds_are_their_mean_in_a_band_and_one_that_stopped_early_keeps_its_value():
    seeds = [
        course(f"s{i}", "equilibrium", table(2 + i, 1.0 + i), imbalance="step", seed=str(i)) for i in range(2)
    ]
    (line,) = lines(seeds)["step"]
    curve = line.curve("train", "nc1")
    assert curve["mean"].tolist() == [1.5, 0.75, 0.375, (0.25 + 0.25) / 2]
    assert curve["low"].tolist() == [1, 0.5, 0.25, 0.25]
    assert curve["high"].tolist() == [2, 1, 0.5, 0.25]
    figure = along_figure({"step": [line]}, along_scales({"step": [line]}))
    band = figure.axes[0].collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == pytest.approx((0.25, 2))


def test_runs_that_are_no_seeds_of_each_other_are_lines_of_their_own():
    runs = [
        course("deq", "equilibrium", table(5)),
        course("one", "explicit", table(1)),
        course("three", "explicit", table(3)),
        course("x", "explicit", table(1), imbalance="step", seed="0"),
        course("y", "explicit", table(1), imbalance="step", seed="1"),
    ]
    found = lines(runs)
    assert {setting: [line.label for line in group] for setting, group in found.items()} == {
        "digits": ["one", "three", "DEQ"],
        "step": ["explicit"],
    }
    looks = [(line.look.colour, line.look.marker) for line in found["digits"]]
    assert len(set(looks)) == 3


def test_a_metric_that_no_run_knows_has_no_panel_and_a_value_that_is_not_finite_is_a_gap():
    broken = table(3, metrics=("nc1", "nc2_etf_means"))
    broken.loc[(broken["evaluations"] == 1) & (broken["metric"] == "nc1"), "value"] = np.inf
    found = lines([course("a", "explicit", broken)])
    figure = along_figure(found, along_scales(found))
    assert [axes.get_title(loc="left")[:3] for axes in figure.axes] == ["NC1", "NC2"]
    assert drawn(figure, "explicit-train-nc1")[0].get_xdata().tolist() == [0, 2, 3]
    nothing = broken.assign(value=np.nan)
    assert lines([course("b", "explicit", nothing)]) == {}


@pytest.mark.parametrize(("first", "last"), [(0, 1), (-3, 8), (0, 200)])
def test_every_evaluation_lies_in_the_panel(first, last):
    long = table(last)
    before = long[long["evaluations"] < -first].assign(evaluations=lambda t: t["evaluations"] + first)
    found = lines([course("a", "equilibrium", pd.concat([before, long]))])
    figure = along_figure(found, along_scales(found))
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert low <= first
        assert high >= last
    assert ("layers of the encoder" in figure.axes[-1].get_xlabel()) is (first < 0)


def test_the_report_shows_the_figure_of_every_setting_with_tables(with_tables):
    study = read_study(with_tables(refinements=("equilibrium",), seeds=2, samples=20))
    page = render(study, figure_sections(study))
    assert page.count('aria-label="Collapse along the computation') == 2
    assert "Lines are means over seeds" in page
    ids = re.findall(r'\bid="([^"]*along[^"]*)"', page)
    assert len(ids) == len(set(ids)) > 0
    without = replace(study, runs=(replace(study.runs[0], along=None),))
    assert "Along the computation" not in render(without, figure_sections(without))


def test_runs_without_a_table_are_left_out(with_tables):
    study = with_tables(imbalances=("balanced",))
    (study / "balanced-explicit-seed0" / "along.csv").unlink()
    found = lines(courses(read_study(study).runs))
    assert {setting: [line.label for line in group] for setting, group in found.items()} == {
        "balanced": ["DEQ"]
    }


@pytest.mark.parametrize("content", ["", "split,value\ntrain,1\n", "split,evaluations\x00", "a,b\n1,2\n"])
def test_a_broken_table_is_named(with_tables, content):
    study = with_tables(imbalances=("balanced",))
    (study / "balanced-explicit-seed0" / "along.csv").write_text(content)
    with pytest.raises(UserError, match=r"balanced-explicit-seed0/along\.csv") as refusal:
        read_study(study)
    assert "\n" not in str(refusal.value)


def test_the_figure_is_a_file_of_each_kind_and_the_same_for_the_same_tables(tmp_path):
    found = lines([course("a", "explicit", table(2)), course("b", "equilibrium", table(5))])
    for name in ("first", "second"):
        write_figure(tmp_path / name, along_figure(found, along_scales(found)))
    for suffix in (".svg", ".png", ".pdf"):
        assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()
    assert "http" not in svg(along_figure(found, along_scales(found)), "a", "b")
