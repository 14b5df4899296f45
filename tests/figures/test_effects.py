"""The figures of what adds what draw the table's numbers, and every seed of every family."""

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from deq_collapse.analysis.by_epoch import effect_curves
from deq_collapse.analysis.contrasts import effect_tables
from deq_collapse.figures.by_epoch import effect_curves_figure
from deq_collapse.figures.effects import effects_figure, families_figure, shown
from deq_collapse.runs.study import Contrast, Study

REFINEMENTS = ("once", "tied", "equilibrium")
CONTRASTS = (
    Contrast("equilibrium", "refinement", "tied", "equilibrium"),
    Contrast("bound", "family", "free", "contraction"),
)


@pytest.fixture
def study(made_up: Callable[..., Study]) -> Study:
    """Two families, three refinements, three seeds; every run has values of its own."""
    draw = np.random.default_rng(0)

    def values(imbalance: str, refinement: str, seed: int) -> dict:
        nc1, nc2, nc3 = draw.uniform(0.1, 1.0, 3)
        train = {"nc1": nc1, "nc2_etf_means": nc2, "nc3": nc3}
        return {"train": train, "test": {"accuracy_minority": draw.uniform(0.1, 0.5)}}

    parts = [
        made_up(values, refinements=REFINEMENTS, axes={"family": family})
        for family in ("free", "contraction")
    ]
    return Study("s", "", parts[0].runs + parts[1].runs, (), (), CONTRASTS)


def test_dots_stand_at_the_effects_and_lines_span_their_intervals(study: Study) -> None:
    (table,) = effect_tables(study)
    figure = effects_figure(table)
    measures = shown(table.measures)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [measure.title for measure in measures]
    for axes, measure in zip(figure.axes, measures, strict=True):
        factor = 100 if measure.kind == "share" else 1
        told = [
            effect.comparison for row in table.rows for effect in row.effects if effect.measure is measure
        ]
        marks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() in ("o", "D")]
        spans = [
            list(line.get_xdata())
            for line in axes.lines
            if line.get_linestyle() == "-" and len(line.get_xdata()) == 2 and line.get_marker() == "None"
        ][:-1]
        assert marks == pytest.approx([factor * comparison.effect for comparison in told])
        assert np.array(spans) == pytest.approx(
            factor * np.array([comparison.interval for comparison in told])
        )


def test_accuracy_is_drawn_where_no_class_is_a_minority(made_up: Callable[..., Study]) -> None:
    def values(imbalance: str, refinement: str, seed: int) -> dict:
        test = {"accuracy": 0.5 + 0.1 * seed, "error": 0.5}
        return {"train": {"nc1": 1.0 + seed + len(refinement)}, "test": test}

    contrast = Contrast("equilibrium", "refinement", "tied", "equilibrium")
    runs = made_up(values, ("balanced",), refinements=("tied", "equilibrium")).runs
    (table,) = effect_tables(Study("s", "", runs, (), (), (contrast,)))
    titles = [axes.get_title(loc="left") for axes in effects_figure(table).axes]
    assert titles[:2] == ["accuracy", "NC1"]


def test_the_interval_of_two_pairs_does_not_hide_the_others_and_ends_in_arrows(made_up) -> None:
    """Two pairs have a quantile of 12.7 where ten have 2.3."""
    draw = np.random.default_rng(0)

    def values(imbalance: str, refinement: str, seed: int) -> dict:
        return {"train": {"nc2_etf_means": draw.uniform(0.4, 0.6)}}

    few = tuple(f"step_ka3_r10-equilibrium-{seed}" for seed in range(2, 10))
    study = made_up(values, refinements=REFINEMENTS, missing=few, seeds=10, axes={"family": "free"})
    contrasts = (CONTRASTS[0], Contrast("depth", "refinement", "once", "tied"))
    (table,) = effect_tables(Study("s", "", study.runs, (), (), contrasts))
    nc2 = table.measures.index(next(m for m in table.measures if m.key == "train_nc2_etf_means"))
    two, ten = (row.effects[nc2].comparison for row in table.rows)
    assert (two.n, ten.n) == (2, 10)
    (axes,) = (axes for axes in effects_figure(table).axes if axes.get_title(loc="left") == "NC2")
    low, high = axes.get_xlim()
    assert two.interval[0] < low < ten.interval[0] < ten.interval[1] < high < two.interval[1]
    arrows = [line.get_marker() for line in axes.lines if line.get_marker() in ("<", ">")]
    assert arrows == ["<", ">"]


def test_every_place_is_named_once_and_a_solved_one_as_in_tables(study: Study) -> None:
    (table,) = effect_tables(study)
    labels = [label.get_text() for label in effects_figure(table).axes[0].get_yticklabels()]
    assert labels == ["free", "contraction", "mean of 2", "once", "tied", "DEQ", "mean of 3"]


@pytest.mark.parametrize("decades", [0.01, 0.2, 0.5, 1, 3, 6, 12])
def test_numbers_under_a_panel_do_not_touch(made_up: Callable[..., Study], decades: float) -> None:
    draw = np.random.default_rng(0)

    def values(imbalance: str, refinement: str, seed: int) -> dict:
        return {"train": {"nc1": 10 ** (decades * draw.uniform(-0.5, 0.5))}}

    study = made_up(values, refinements=REFINEMENTS, axes={"family": "free"})
    (table,) = effect_tables(Study("s", "", study.runs, (), (), CONTRASTS[:1]))
    figure = effects_figure(table)
    figure.draw_without_rendering()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        boxes = [
            label.get_window_extent()
            for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
            if low <= at <= high
        ]
        assert boxes
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_an_effect_of_a_percent_does_not_fill_its_panel(made_up: Callable[..., Study]) -> None:
    draw = np.random.default_rng(0)

    def values(imbalance: str, refinement: str, seed: int) -> dict:
        return {"train": {"nc1": 10 ** (0.01 * draw.uniform(-0.5, 0.5))}}

    study = made_up(values, refinements=REFINEMENTS, axes={"family": "free"})
    (table,) = effect_tables(Study("s", "", study.runs, (), (), CONTRASTS[:1]))
    (axes,) = (axes for axes in effects_figure(table).axes if axes.get_title(loc="left") == "NC1")
    low, high = axes.get_xlim()
    assert low < 0.8 < 1.25 < high


def test_families_show_every_seed_of_every_refinement(study: Study) -> None:
    (table,) = effect_tables(study)
    measure = next(measure for measure in table.measures if measure.key == "train_nc2_etf_means")
    (axes,) = families_figure(study.runs, [measure]).axes
    seeds = [line.get_ydata()[0] for line in axes.lines if line.get_marker() != "None"]
    assert sorted(seeds) == pytest.approx(sorted(run.train["nc2_etf_means"] for run in study.runs))
    means = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "None"]
    assert len(means) == 2 * len(REFINEMENTS)


@pytest.mark.parametrize("kinds", [2, 5, 12])
def test_a_legend_of_any_length_stays_within_the_figure(
    study: Study, made_up: Callable[..., Study], kinds: int
) -> None:
    (table,) = effect_tables(study)
    names = ["once", "tied", *(f"equilibrium_number_{i}" for i in range(kinds - 2))]
    runs = made_up(lambda *_: {"train": {"nc1": 1.0}}, refinements=names, axes={"family": "free"}).runs
    figure = families_figure(runs, shown(table.measures))
    figure.draw_without_rendering()
    words = [text.get_window_extent() for text in figure.texts]
    panels = [axes.get_tightbbox() for axes in figure.axes]
    assert (len(words), len(panels)) == (kinds, 4)
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in words)
    assert all(box.y1 <= figure.bbox.y1 for box in words)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(words, 2))
    assert not any(word.overlaps(panel) for word in words for panel in panels)


def _course(imbalance: str, refinement: str, seed: int) -> dict:
    """Ten values of two curves, other ones for every run."""
    draw = np.random.default_rng([len(refinement), seed])
    rows = [
        (epoch, epoch, split, metric, draw.uniform(0.1, 1.0))
        for split, metric in (("train", "nc1"), ("train", "loss"), ("test", "accuracy_minority"))
        for epoch in (1, 2, 3, 4, 6, 9, 14, 21, 32, 40)
    ]
    return {"history": pd.DataFrame(rows, columns=["epoch", "step", "split", "metric", "value"])}


def test_effects_by_epoch_are_drawn_as_they_are_in_one_scale_for_each_measure(made_up) -> None:
    parts = [
        made_up(_course, refinements=REFINEMENTS, axes={"family": family})
        for family in ("free", "contraction")
    ]
    curves = effect_curves(Study("s", "", parts[0].runs + parts[1].runs, (), (), CONTRASTS))
    figure = effect_curves_figure(curves)
    measures = list(dict.fromkeys(curve.measure for curve in curves))
    assert [text.get_text() for text in figure.texts[0:6:2]] == ["minority accuracy", "NC1", "training loss"]
    names = [text.get_text() for text in figure.texts if text.get_weight() == "bold"]
    assert names == ["equilibrium: tied → DEQ", "bound: free → contraction"]
    for i, measure in enumerate(measures):
        column = figure.axes[2 * i : 2 * i + 2]
        assert len({axes.get_ylim() for axes in column}) == 1
        for axes, contrast in zip(column, CONTRASTS, strict=True):
            mine = [curve for curve in curves if (curve.measure, curve.contrast) == (measure, contrast)]
            lines = [line for line in axes.lines if line.get_marker() == "o"]
            factor = 100 if measure.kind == "share" else 1
            assert len(lines) == len(mine) == (2 if contrast.axis == "refinement" else 3)
            for line, curve in zip(lines, mine, strict=True):
                assert list(line.get_xdata()) == list(curve.comparisons)
                told = [factor * comparison.effect for comparison in curve.comparisons.values()]
                assert list(line.get_ydata()) == pytest.approx(told)
