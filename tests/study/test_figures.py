"""What the figures show, and that they are the same for the same numbers."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from deq_collapse.metrics.geometry import simplex_etf_gram
from deq_collapse.study.angles import angle_matrices, class_angles, cosine_gram, target_angles
from deq_collapse.study.curves import collapse_curves, shared_scales
from deq_collapse.study.records import Run, Study, read_study
from deq_collapse.study.style import series, spread, svg
from deq_collapse.study.tsne import draw_tsne, embed

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
    assert np.array_equal(embed(geometry.test_features), embed(geometry.test_features))
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
    assert 'aria-label="x &quot;&lt;y>&quot;"' in first
    ids = re.findall(r'\bid="([^"]*)"', first)
    assert all(name.startswith("a-") for name in ids)
    references = set(re.findall(r"(?:url\(#|href=\"#)([^\")]*)", first))
    assert references <= set(ids)
