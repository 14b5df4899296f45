"""What the figures show, and that they are the same for the same numbers."""

import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs

from deq_collapse.analysis.angles import class_angles, cosine_gram, target_angles
from deq_collapse.analysis.arrangement import arranged
from deq_collapse.analysis.minority import minority_table, theory_table
from deq_collapse.figures.angles import angle_matrices
from deq_collapse.figures.curves import PANELS, collapse_curves, panels, shared_scales
from deq_collapse.figures.features import sorted_gram
from deq_collapse.figures.minority import NO_THEORY, collapse_curve
from deq_collapse.figures.multiples import metric_multiples
from deq_collapse.figures.style import series, spread, svg
from deq_collapse.figures.tsne import _embed, draw_tsne, embed
from deq_collapse.metrics.functional.imbalance import minority_cosines
from deq_collapse.metrics.geometry import simplex_etf_gram
from deq_collapse.report.explore import SHAPES, curve_data, library, packed
from deq_collapse.report.sections import all_drawings, figure_sections
from deq_collapse.runs.record import Run
from deq_collapse.runs.study import Study, read_study

MakeStudy = Callable[..., Path]


@pytest.fixture
def study(make_study: MakeStudy) -> Study:
    return read_study(make_study())


def _cell(study: Study, setting: int) -> dict[str, list[Run]]:
    return list(study.cells.values())[setting]


def test_terminal_phase_is_marked_at_its_epoch_on_the_training_curve(study: Study) -> None:
    cell = _cell(study, 0)
    figure = collapse_curves(cell, shared_scales(study.runs))
    for runs in cell.values():
        (run,) = runs
        assert run.terminal_epoch is not None
        marks = [line for line in figure.axes[1].lines if line.get_gid() == f"terminal-nc1-{run.name}"]
        assert {float(x) for line in marks for x in line.get_xdata()} == {run.terminal_epoch}
        diamond = next(line for line in marks if line.get_marker() == "D")
        assert diamond.get_ydata()[0] == pytest.approx(run.curve("train", "nc1")[run.terminal_epoch])


def test_a_run_that_never_was_terminal_has_no_mark_and_says_so(make_study: MakeStudy) -> None:
    study = read_study(make_study(edit=lambda results: results["runs"][0].update(terminal_epoch=None)))
    cell = _cell(study, 0)
    figure = collapse_curves(cell, shared_scales(study.runs))
    gids = [line.get_gid() or "" for axes in figure.axes for line in axes.lines]
    assert not any(study.runs[0].name in gid for gid in gids)
    assert "explicit: training error never 0" in [text.get_text() for text in figure.texts]


def test_curves_hold_the_logged_values_and_exact_zeros_stay_in_sight(study: Study) -> None:
    cell = _cell(study, 0)
    figure = collapse_curves(cell, shared_scales(study.runs))
    nc4 = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("NC4"))
    run = cell["explicit"][0]
    logged = run.curve("train", "nc4")
    assert (logged == 0).any()
    assert any(np.array_equal(line.get_ydata(), logged) for line in nc4.lines)
    bottom = nc4.transAxes.transform((0, 0))[1]
    assert nc4.transData.transform((1, 0))[1] > bottom
    assert "0" in [nc4.yaxis.get_major_formatter()(tick, 0) for tick in nc4.get_yticks()]


LONG = "an explicit network with the whole penalty"


def _inside(figure: Figure) -> None:
    FigureCanvasAgg(figure).draw()
    names = [text for axes in figure.axes for text in axes.texts if text.get_text().startswith(LONG)]
    assert names
    for name in names:
        assert name.get_window_extent().x1 <= figure.bbox.x1


def test_no_name_of_a_line_is_cut_off_however_long(study: Study) -> None:
    _inside(collapse_curves({LONG: study.runs}, shared_scales(study.runs)))
    cells = {setting: {LONG: next(iter(cell.values()))} for setting, cell in study.cells.items()}
    _inside(metric_multiples(PANELS[1], cells, shared_scales(study.runs)["nc1"]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_a_gap(make_study: MakeStudy, value: float) -> None:
    study = read_study(make_study(imbalances=("balanced",)))
    history = study.runs[0].history
    history.loc[history["epoch"] > 20, "value"] = value
    figure = collapse_curves(_cell(study, 0), shared_scales(study.runs))
    drawn = max(
        (line for line in figure.axes[1].lines if line.get_marker() == "o"),
        key=lambda line: len(line.get_xdata()),
    )
    assert max(drawn.get_xdata()) == 20
    assert "<svg" in svg(figure, "a", "with a gap")


def test_panels_follow_what_was_logged_and_share_their_scales(study: Study) -> None:
    scales = shared_scales(study.runs)
    balanced, step = (collapse_curves(cell, scales) for cell in study.cells.values())
    assert len(balanced.axes) == 6
    assert len(step.axes) == 8
    for left, right in zip(balanced.axes, step.axes, strict=False):
        assert left.get_ylim() == right.get_ylim()


def test_seeds_are_drawn_as_a_band_that_holds_every_run(make_study: MakeStudy) -> None:
    study = read_study(make_study(imbalances=("balanced",), seeds=3))
    figure = collapse_curves(_cell(study, 0), shared_scales(study.runs))
    band = figure.axes[1].collections[0].get_paths()[0].get_extents()
    values = np.concatenate([run.curve("train", "nc1") for run in _cell(study, 0)["explicit"]])
    assert (band.y0, band.y1) == pytest.approx((values.min(), values.max()))


def test_refinements_differ_in_lightness_and_mark_not_only_in_hue() -> None:
    def lightness(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    explicit, equilibrium = series("explicit"), series("equilibrium")
    assert abs(lightness(explicit.colour) - lightness(equilibrium.colour)) > 60
    assert explicit.marker != equilibrium.marker


def test_a_second_network_of_a_kind_does_not_look_like_the_first() -> None:
    kinds = ("once", "tied", "tied_penalised", "tied_light", "untied", "equilibrium", "equilibrium_light")
    names = (*kinds, "light")
    assert len({(series(name).colour, series(name).marker) for name in names}) == len(names)
    assert len({series(name).colour for name in names}) == len(names)
    tied = ("tied", "tied_12_undamped", "tied_5_undamped", "tied_phantom", "tied_jfb")
    assert len({(series(name).colour, series(name).marker) for name in tied}) == len(tied)
    assert {series(f"own {i}").marker for i in range(20)} <= set(SHAPES)  # the page draws them too
    assert {series(name).marker for name in names} <= set(SHAPES)


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=6))
def test_spread_labels_keep_their_order_their_distance_and_the_panel(positions: list[float]) -> None:
    placed = spread(positions, 0.1, 0.0, 1.0)
    order = np.argsort(positions, kind="stable")
    assert (np.diff(placed[order]) >= 0.1 - 1e-9).all()
    assert placed.min() >= -1e-9
    assert placed.max() <= 1 + 1e-9


def test_spread_leaves_labels_with_room_where_they_are() -> None:
    assert spread([0.9, 0.1, 0.5], 0.1, 0.0, 1.0) == pytest.approx([0.9, 0.1, 0.5])


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_all_pairs_of_the_simplex_etf_have_its_angle(num_classes: int) -> None:
    angles = target_angles(simplex_etf_gram(num_classes).numpy())
    ideal = np.degrees(np.arccos(-1 / (num_classes - 1)))
    assert angles == pytest.approx(np.where(np.eye(num_classes, dtype=bool), 0, ideal))


def test_cosines_of_a_zero_row_are_not_a_number() -> None:
    gram = cosine_gram(np.array([[0.0, 0.0], [3.0, 4.0]]))
    assert np.isnan(gram[0]).all()
    assert gram[1, 1] == pytest.approx(1)


def test_angles_stand_beside_etf_and_the_seli_of_unequal_counts(study: Study) -> None:
    balanced, step = ({name: runs[0] for name, runs in cell.items()} for cell in study.cells.values())
    titles = [axes.get_title(loc="left") for axes in angle_matrices(balanced).axes]
    assert [title for title in titles if title] == ["explicit", "equilibrium", "simplex ETF"]
    figure = angle_matrices(step)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 8
    assert len({image.get_clim() for image in images}) == 1
    means, rows = class_angles(step["explicit"].geometry)
    assert np.asarray(images[0].get_array()) == pytest.approx(means)
    assert np.asarray(images[1].get_array()) == pytest.approx(rows)
    assert {line.get_ydata()[0] for line in images[0].axes.lines[:1]} == {2.5}


def test_tsne_is_the_same_for_the_same_features_and_names_every_class(study: Study) -> None:
    geometry = study.runs[0].geometry
    first = embed(geometry.test_features)
    _embed.cache_clear()
    assert np.array_equal(first, embed(geometry.test_features))
    axes = Figure().subplots()
    draw_tsne(axes, geometry)
    names = {text.get_text() for text in axes.texts}
    assert names == {geometry.class_names[label] for label in np.unique(geometry.test_labels)}


@pytest.mark.parametrize("features", [np.eye(4), np.ones((20, 3)), np.full((20, 3), np.nan)])
def test_features_without_a_map_are_told_apart(features: np.ndarray) -> None:
    assert embed(features) is None


@pytest.mark.parametrize("shape", [(5, 3), (12, 1)])
def test_few_samples_and_one_dimension_have_a_map(shape: tuple[int, int]) -> None:
    plane = embed(np.random.default_rng(0).standard_normal(shape))
    assert plane is not None
    assert plane.shape == (shape[0], 2)
    assert np.isfinite(plane).all()


def test_svg_is_deterministic_and_needs_nothing_from_outside(study: Study) -> None:
    scales = shared_scales(study.runs)
    first, second = (svg(collapse_curves(_cell(study, 0), scales), "a", 'x "<y>"') for _ in range(2))
    assert first == second
    assert "http" not in first
    assert 'aria-label="x &quot;&lt;y&gt;&quot;"' in first
    ids = re.findall(r'\bid="([^"]*)"', first)
    assert all(name.startswith("a-") for name in ids)
    references = set(re.findall(r"(?:url\(#|href=\"#)([^\")]*)", first))
    assert references <= set(ids)


def test_settings_lie_by_k_a_and_r_below_the_balanced_one(grid: Study) -> None:
    assert arranged(grid.cells) == [
        ["balanced"],
        ["step, K_A=3, R=10", "step, K_A=3, R=100"],
        ["step, K_A=5, R=10", "step, K_A=5, R=100"],
    ]
    without = {setting: cell for setting, cell in grid.cells.items() if "K_A=5, R=10" not in setting}
    assert arranged(without) == [["balanced", *list(without)[1:]]]
    hole = {setting: cell for setting, cell in grid.cells.items() if setting != "step, K_A=3, R=100"}
    assert arranged(hole)[1] == ["step, K_A=3, R=10", None]


def test_small_multiples_share_a_scale_and_mark_every_terminal_phase(grid: Study) -> None:
    panel = next(panel for panel in PANELS if panel.metric == "nc1")
    figure = metric_multiples(panel, grid.cells, shared_scales(grid.runs)["nc1"])
    assert [axes.get_title(loc="left").replace("$", "") for axes in figure.axes] == list(grid.cells)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    for axes, (setting, cell) in zip(figure.axes, grid.cells.items(), strict=True):
        for refinement, runs in cell.items():
            gid = f"terminal-{setting}-{refinement}"
            diamonds = [line for line in axes.lines if line.get_gid() == gid and line.get_marker() == "D"]
            middle = np.median([run.terminal_epoch for run in runs if run.terminal_epoch is not None])
            assert [line.get_xdata()[0] for line in diamonds] == [middle]


def test_how_many_seeds_were_terminal_is_told_where_not_all_were(grid: Study) -> None:
    never = replace(
        grid, runs=tuple(replace(run, terminal_epoch=None) for run in grid.runs[:1]) + grid.runs[1:]
    )
    panel = next(panel for panel in PANELS if panel.metric == "loss")
    figure = metric_multiples(panel, never.cells, shared_scales(never.runs)["loss"])
    assert "1 of 2" in [text.get_text() for text in figure.axes[0].texts]
    assert not any("of 2" in text.get_text() for axes in figure.axes[1:] for text in axes.texts)


def test_a_setting_without_the_metric_has_no_axes_and_a_missing_refinement_leaves_the_other(
    grid: Study,
) -> None:
    half = replace(grid, runs=grid.runs[:-2])
    panel = next(panel for panel in PANELS if panel.metric == "accuracy_minority")
    figure = metric_multiples(panel, half.cells, shared_scales(half.runs)["accuracy_minority"])
    assert len(figure.axes) == 4
    named = {text.get_text() for text in figure.axes[-1].texts}
    assert named == {"explicit, train", "explicit, test"}


def test_the_validation_split_is_drawn_where_there_is_one(study: Study) -> None:
    run = study.runs[0]
    history = run.history.replace({"split": {"test": "validation"}})
    measured = replace(run, history=history, validation=run.test)
    figure = collapse_curves({"explicit": [measured]}, shared_scales([measured]))
    assert "explicit, validation" in {text.get_text() for text in figure.axes[0].texts}
    logged = measured.curve("validation", "accuracy")
    assert any(np.array_equal(line.get_ydata(), logged) for line in figure.axes[0].lines)


def test_minority_cosines_are_those_of_the_metric(grid: Study) -> None:
    table = minority_table(grid.cells)
    assert len(table) == len(grid.runs) + 4  # a balanced run stands for both K_A
    run = grid.cells["step, K_A=5, R=10"]["explicit"][0]
    row = table[table["name"] == run.name].iloc[0]
    geometry, minority = run.geometry, torch.arange(10) >= 5
    rows = torch.from_numpy(geometry.weight)
    means = torch.from_numpy(geometry.class_means_train - geometry.class_means_train.mean(axis=0))
    assert row["weights"] == pytest.approx(float(minority_cosines(rows @ rows.T, minority).mean()))
    assert row["means"] == pytest.approx(float(minority_cosines(means @ means.T, minority).mean()))
    energy = (rows - rows.mean(0)).square().sum(1).mean() * means.square().sum(1).mean()
    assert row["energy"] == pytest.approx(float(energy.sqrt()))


def test_minority_rows_of_theory_coincide_exactly_from_the_critical_ratio_on(grid: Study) -> None:
    pytest.importorskip("cvxpy")
    table = minority_table(grid.cells)
    table = table[table["majority"] == 5].assign(energy=5**0.5)
    theory = theory_table(table, 10)
    assert theory is not None
    coincide = theory["weights"] > 0.999
    assert coincide.tolist() == (theory["ratio"] >= theory["critical"]).tolist()
    assert set(coincide) == {True, False}
    figure = collapse_curve(table, theory, 10)
    (critical,) = theory["critical"].unique()
    marks = [line for line in figure.axes[0].lines if str(line.get_gid()).startswith("R0")]
    assert [line.get_xdata()[0] for line in marks] == [critical] * 2


def test_without_cvxpy_the_collapse_curve_says_that_theory_is_missing(grid: Study) -> None:
    figure = collapse_curve(minority_table(grid.cells), None, 10)
    assert NO_THEORY in [text.get_text() for text in figure.texts]
    assert not any("theory" in text.get_text() for axes in figure.axes for text in axes.texts)


def test_gram_matrices_of_features_are_sorted_by_class_with_the_majority_first(study: Study) -> None:
    geometry = replace(study.runs[-1].geometry, majority=np.array([7, 2]))
    gram, labels = sorted_gram(geometry)
    assert list(dict.fromkeys(labels)) == [7, 2, 0, 1, 3, 4, 5, 6, 8, 9]
    assert gram.shape == (len(labels), len(labels))
    assert np.diagonal(gram) == pytest.approx(1)


def test_every_drawing_has_a_name_of_its_own(grid: Study) -> None:
    names = [drawing.name for drawing in all_drawings(figure_sections(grid))]
    assert len(names) == len(set(names))
    assert {"nc1", "nc2_etf_means", "nc3", "nc4", "loss", "accuracy", "minority"} <= set(names)
    assert {"step-ka3-r10-features", "step-ka3-r10-angles", "step-ka3-r10-curves"} <= set(names)


def test_the_page_carries_every_course_and_plotly_itself(study: Study) -> None:
    data = curve_data(study)
    assert [run["name"] for run in data["runs"]] == [run.name for run in study.runs]
    for run, drawn in zip(study.runs, data["runs"], strict=True):
        for split in ("train", "test"):
            logged, course = run.curve(split, "nc1"), drawn["splits"][split]
            assert course["epochs"] == logged.index.tolist()
            assert course["metrics"]["nc1"] == pytest.approx(logged.tolist(), rel=1e-3)
    assert data["splits"] == ["train", "test"]
    assert unpacked(library()) == get_plotlyjs()


def unpacked(text: str) -> str:
    return gzip.decompress(base64.b64decode(text)).decode()


def test_a_split_measured_once_has_no_course(study: Study) -> None:
    run = study.runs[0]
    history = run.history[(run.history["split"] == "train") | (run.history["epoch"] == run.epochs)]
    data = curve_data(replace(study, runs=(replace(run, history=history),)))
    assert data["splits"] == ["train"]


def test_words_cannot_leave_the_script(study: Study) -> None:
    hostile = replace(study.runs[0], axes={"imbalance": "</script><b>", "refinement": "explicit"})
    text = packed(json.dumps(curve_data(replace(study, runs=(hostile,)))))
    assert "<" not in text
    assert json.loads(unpacked(text))["settings"] == ["</script><b>"]


def test_the_loss_panel_names_the_criterion_that_ran(make_study: MakeStudy) -> None:
    study = make_study(imbalances=("balanced",))
    titles = {panel.metric: panel.title for panel in panels(read_study(study).runs)}
    assert titles["loss"] == "Training loss: cross entropy"
    path = study / "balanced-equilibrium-seed0" / "config.yaml"
    path.write_text("model: {criterion: {class_path: deq_collapse.losses.LDAM}}")
    titles = {panel.metric: panel.title for panel in panels(read_study(study).runs)}
    assert titles["loss"] == "Training loss: LDAM, cross entropy"
    path.unlink()
    (unknown,) = [panel for panel in panels(read_study(study).runs[1:]) if panel.train_only]
    assert unknown.title == "Training loss"
