"""A study file says which runs there are, and under which configurations."""

from pathlib import Path

import pytest
import yaml

from deq_collapse.errors import UserError
from deq_collapse.study.check import same
from deq_collapse.study.grid import StudyFile, read_study_file
from deq_collapse.study.plan import Planned

REFINEMENTS = {"explicit": {"model": 1}, "equilibrium": {"model": 2}}


def read(directory: Path, **content: object) -> StudyFile:
    path = directory / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "s", **content}, sort_keys=False))
    return read_study_file(path)


def names(study: StudyFile) -> list[str]:
    return [cell.name for cell in study.cells]


def test_the_runs_are_the_product_of_the_axes_seed_by_seed(tmp_path: Path):
    study = read(tmp_path, axes={"refinement": REFINEMENTS, "R": {"data.ratio": [10, 50]}}, seeds=[0, 1])
    assert names(study) == [
        f"{refinement}-R{ratio}-seed{seed}"
        for seed in (0, 1)
        for refinement in REFINEMENTS
        for ratio in (10, 50)
    ]
    assert study.cells[1].axes == {"refinement": "explicit", "R": "50", "seed": "0"}


def test_more_seeds_extend_a_study_and_leave_its_runs_as_they_are(tmp_path: Path):
    study = read(tmp_path, axes={"refinement": REFINEMENTS}, seeds=[5, 0])
    more = read_study_file(tmp_path / "study.yaml", seeds=4)
    assert [cell.axes["seed"] for cell in more.cells[::2]] == ["5", "0", "1", "2"]
    assert more.cells[: len(study.cells)] == study.cells
    assert read_study_file(tmp_path / "study.yaml", seeds=1).cells == study.cells[:2]


@pytest.mark.parametrize(
    "axes",
    [
        {"loss": {"a_b": {"model": 1}, "a b": {"model": 2}}},
        {"refinement": {"DEQ": {"model": 1}, "equilibrium": {"model": 2}}},
        {"imbalance": {"step ka3": {"model": 1}, "step_ka3": {"model": 2}}},
    ],
)
def test_labels_that_read_alike_are_refused(tmp_path: Path, axes: dict):
    with pytest.raises(UserError, match="would read alike in tables"):
        read(tmp_path, axes=axes)


def test_contrasts_are_two_labels_of_one_axis(tmp_path: Path):
    axes = {"refinement": REFINEMENTS, "R": {"data.ratio": [10, 50]}}
    study = read(tmp_path, axes=axes, contrasts={"ratio": {"R": [10, 50]}})
    assert study.contrasts == ({"name": "ratio", "axis": "R", "before": "10", "after": "50"},)


@pytest.mark.parametrize(
    ("contrasts", "said"),
    [
        ({"ratio": {"R": [10, 60]}}, "the axis R has 10, 50"),
        ({"ratio": {"R": [10]}}, "not one axis with two of its labels"),
        ({"ratio": {"R": [10, 10]}}, "not one axis with two of its labels"),
        ({"ratio": {"K": [1, 2]}}, "not one axis with two of its labels"),
        ({"ratio": {"R": [10, 50], "K": [1, 2]}}, "not one axis with two of its labels"),
        (["ratio"], "contrasts maps each name"),
    ],
)
def test_a_contrast_that_is_none_is_refused(tmp_path: Path, contrasts: object, said: str):
    with pytest.raises(UserError, match=said):
        read(tmp_path, axes={"R": {"data.ratio": [10, 50]}}, contrasts=contrasts)


def test_a_study_that_is_not_one_product_is_a_list_of_grids(tmp_path: Path):
    study = read(
        tmp_path,
        axes={"refinement": REFINEMENTS},
        seeds=[0, 1],
        grids=[
            {"axes": {"imbalance": {"balanced": {}}}},
            {
                "axes": {
                    "imbalance": {"step": {}},
                    "K_A": {"data.majority": [3, 5, 7]},
                    "R": {"data.ratio": [10]},
                }
            },
            {"axes": {"imbalance": {"long_tailed": {}}}, "seeds": [0]},
        ],
    )
    assert len(study.cells) == 2 * 2 + 3 * 2 * 2 + 2
    assert "step-K_A5-R10-equilibrium-seed1" in names(study)
    assert "long_tailed-explicit-seed1" not in names(study)


def test_later_configurations_stand_later(tmp_path: Path):
    study = read(
        tmp_path,
        config=[{"a": 1}],
        axes={"loss": {"mse": {"a": 3}}},
        override=[{"a": 5}],
        grids=[{"config": [{"a": 2}], "axes": {"R": {"data.imbalance.ratio": [10]}}, "override": [{"a": 6}]}],
    )
    configs = [yaml.safe_load(config) for config in study.cells[0].configs]
    ratio = {"data": {"imbalance": {"ratio": 10}}}
    assert configs == [{"a": 1}, {"a": 2}, {"a": 3}, ratio, {"a": 5}, {"a": 6}, {"seed_everything": 0}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"grids": [{"axis": {}}]}, "unknown key axis (did you mean axes?); a grid has"),
        ({"grids": []}, "grids is a list"),
        ({"grids": [{}, {}]}, "seed0 is the name of more than one run"),
        ({"axes": {"R": {"a.b": [1], "c": [2]}}}, "the axis R has more than one key"),
        ({"axes": {"R": {"a.b": []}}}, "the axis R has no labels"),
        ({"seeds": []}, "no seeds"),
        ({"output": 5}, "output is 5, but it is the directory"),
        ({"output": None}, "output is None, but it is the directory"),
        ({"override": {"a": 1}}, "override is a list"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(tmp_path: Path, content: dict, words: str):
    with pytest.raises(UserError) as told:
        read(tmp_path, **content)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_a_label_may_be_a_list_of_files_and_configurations(tmp_path: Path):
    (tmp_path / "wide.yaml").write_text("model: 1")
    wide = ["wide.yaml", {"data.batch_size": 8}]
    study = read(tmp_path, axes={"net": {"wide": wide, "narrow": {"model": 2}}})
    configs = {cell.axes["net"]: cell.configs for cell in study.cells}
    assert configs["wide"][0] == str(tmp_path / "wide.yaml")
    assert [yaml.safe_load(text) for text in configs["wide"][1:]] == [
        {"data": {"batch_size": 8}},
        {"seed_everything": 0},
    ]
    one = read(tmp_path, axes={"net": {"wide": wide}})  # and is then no key with values
    assert [cell.axes["net"] for cell in one.cells] == ["wide"]


def test_what_a_study_says_itself_holds_against_its_files_wherever_it_stands(tmp_path: Path):
    for name in ("base", "net", "last"):
        (tmp_path / f"{name}.yaml").write_text("model: 1")
    study = read(
        tmp_path,
        config=[{"model.optimizer.init_args.momentum": 0.5}, "base.yaml"],
        axes={"lr": {"model.optimizer.init_args.lr": [0.1]}, "net": {"a": ["net.yaml", {"model.depth": 2}]}},
        override=["last.yaml"],
    )
    shown = [Path(text).stem if text.endswith(".yaml") else text for text in study.cells[0].configs]
    assert shown[:2] == ["base", "net"]
    assert [next(iter(yaml.safe_load(text)["model"])) for text in shown[2:5]] == [
        "optimizer",
        "depth",
        "optimizer",
    ]
    assert shown[5:] == ["last", "seed_everything: 0\n"]


def test_a_shipped_file_keeps_its_name_in_a_study_of_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for place in (Path(__file__).parents[2], tmp_path):  # a checkout, and elsewhere
        monkeypatch.chdir(place)
        assert read(tmp_path, config=["conf/data/digits.yaml"]).cells


def test_keys_below_one_key_stand_side_by_side_however_they_are_written(tmp_path: Path):
    together = {"model.optimizer.init_args.lr": 0.1, "model": {"optimizer": {"init_args": {"momentum": 0.5}}}}
    configs = read(tmp_path, config=[together], axes={"refinement": REFINEMENTS}).cells[0].configs
    joined = {"model": {"optimizer": {"init_args": {"lr": 0.1, "momentum": 0.5}}}}
    assert joined in map(yaml.safe_load, configs)
    for twice in ({"a": 1, "a.b": 2}, {"a.b": 1, "a": {"b": 2}}):
        with pytest.raises(UserError, match="is given a value twice, or one above it is"):
            read(tmp_path, config=[twice], axes={"refinement": REFINEMENTS})


def test_cells_that_are_one_run_are_found():
    hashes = {"a": "1", "b": "2", "c": "1", "d": "1", "e": "1"}
    cells = [Planned(name, {}, hash, 1) for name, hash in hashes.items()]
    found = same(cells, ["folder"] * 4 + ["another folder"])
    assert [(first.name, other.name) for first, other in found] == [("a", "c"), ("a", "d")]
