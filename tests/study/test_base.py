"""A study file may build on another: what it does not say itself is as there."""

from pathlib import Path

import pytest
import yaml

from deq_collapse.errors import UserError
from deq_collapse.study.grid import StudyFile, read_study_file

BASE = {
    "name": "first",
    "output": "elsewhere",
    "config": ["../run/a.yaml", {"model": {"width": 1}}],
    "axes": {"imbalance": {"balanced": {}}},
    "override": ["../run/b.yaml"],
    "seeds": [3, 4],
    "contrasts": {"depth": {"refinement": ["once", "tied"]}},
    "grids": [{"axes": {"refinement": {"once": "once.yaml", "tied": ["once.yaml", "../run/b.yaml"]}}}],
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The study file `studies/base.yaml`, whose files are in `studies` and `run`."""
    for name in ("run/a.yaml", "run/b.yaml", "studies/once.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("model: {}\n")
    return written(tmp_path / "studies" / "base.yaml", BASE)


def written(path: Path, content: dict) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def same_files(one: StudyFile, other: StudyFile) -> bool:
    def resolved(config: str) -> str:
        return str(Path(config).resolve()) if config.endswith(".yaml") else config

    pairs = zip(one.cells, other.cells, strict=True)
    return all([*map(resolved, a.configs)] == [*map(resolved, b.configs)] for a, b in pairs)


@pytest.mark.parametrize("place", ["studies/other.yaml", "of/mine.yaml"])
def test_all_but_the_name_is_inherited_wherever_the_file_lies(base: Path, tmp_path: Path, place: str):
    name = "base.yaml" if place.startswith("studies") else "../studies/base.yaml"
    study = read_study_file(written(tmp_path / place, {"base": name, "name": "second"}))
    first = read_study_file(base)
    assert study.directory == Path("elsewhere/second")
    assert [cell.axes for cell in study.cells] == [cell.axes for cell in first.cells]
    assert study.contrasts == first.contrasts
    assert same_files(study, first)


def test_own_keys_replace_those_of_the_base(base: Path):
    content = {"base": "base.yaml", "name": "n", "seeds": [0], "axes": {"R": {"data.ratio": [10]}}}
    study = read_study_file(written(base.with_name("own.yaml"), content))
    assert [cell.axes for cell in study.cells] == [
        {"refinement": label, "R": "10", "seed": "0"} for label in ("once", "tied")
    ]


def test_a_base_may_have_a_base(base: Path, tmp_path: Path):
    written(tmp_path / "of" / "middle.yaml", {"base": "../studies/base.yaml", "name": "m", "seeds": [7]})
    study = read_study_file(written(tmp_path / "top.yaml", {"base": "of/middle.yaml", "name": "t"}))
    assert {cell.axes["seed"] for cell in study.cells} == {"7"}
    assert same_files(study, read_study_file(tmp_path / "of" / "middle.yaml"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"base": "base.yaml"}, "a study needs a name"),
        ({"base": "bass.yaml", "name": "n"}, "names bass.yaml, but there is no file"),
        ({"base": ["base.yaml"], "name": "n"}, "base is another study file"),
        ({"base": "own.yaml", "name": "n"}, "its base own.yaml builds on this file itself"),
        ({"base": "circle.yaml", "name": "n"}, "its base own.yaml builds on this file itself"),
        ({"base": "base.yaml", "name": "n", "seed": [1]}, "unknown key seed (did you mean seeds?)"),
        ({"base": "../run/c.yaml", "name": "n"}, "c.yaml is the configuration of one run"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(base: Path, content: dict, said: str):
    written(base.with_name("circle.yaml"), {"base": "own.yaml", "name": "c"})
    written(base.parent.parent / "run" / "c.yaml", {"model": {}})
    with pytest.raises(UserError) as told:
        read_study_file(written(base.with_name("own.yaml"), content))
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_the_base_lacks_is_named(base: Path):
    (base.parent / "once.yaml").unlink()
    with pytest.raises(UserError, match=r"there is no file .*studies/once\.yaml"):
        read_study_file(written(base.with_name("own.yaml"), {"base": "base.yaml", "name": "n"}))
