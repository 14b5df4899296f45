"""A packed study: small, the same report after unpacking, open to more seeds."""

import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deq_collapse.cli import main
from deq_collapse.figures.style import svg
from deq_collapse.report import sections
from deq_collapse.report.sections import Drawing, all_drawings, figure_sections
from deq_collapse.runs.study import read_study

SECTIONS = sections.SECTIONS


@pytest.fixture(scope="module", autouse=True)
def without_figures() -> Iterator[None]:
    """Figures take seconds and have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "SECTIONS", ())
        yield


@pytest.fixture(scope="module")
def study(tiny_study: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished study."""
    directory = tmp_path_factory.mktemp("study")
    assert main(["study", "run", str(tiny_study(directory, "data/step.yaml", epochs=1))]) == 0
    return directory / "tiny"


@pytest.fixture(scope="module")
def packed(study: Path) -> Path:
    assert main(["study", "pack", str(study)]) == 0
    return study.with_name("tiny.tar.xz")


def unpacked(archive: Path, directory: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    return directory / "tiny"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_it_holds_no_weights_and_is_small(study: Path, packed: Path):
    with tarfile.open(packed) as tar:
        names = tar.getnames()
    assert not [name for name in names if name.endswith((".ckpt", ".lock", "log.txt"))]
    assert sum(name.endswith("result.json") for name in names) == 2
    assert packed.stat().st_size < 40_000 * 2


def figures(directory: Path) -> dict[str, Drawing]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "SECTIONS", SECTIONS)
        return {drawing.name: drawing for drawing in all_drawings(figure_sections(read_study(directory)))}


def test_unpacked_it_gives_the_same_tables(study: Path, packed: Path, tmp_path: Path):
    again = unpacked(packed, tmp_path)
    assert main(["study", "report", str(again)]) == 0
    assert contents(again / "tables") == contents(study / "tables")


def test_unpacked_it_has_all_figures_but_those_of_features(study: Path, packed: Path, tmp_path: Path):
    left, before = figures(unpacked(packed, tmp_path)), figures(study)
    gone = [name for name in before if name not in left]
    assert gone == [name for name in before if name.endswith("-features")] != []
    angles = next(name for name in left if name.endswith("-angles"))
    assert svg(left[angles].draw(), "a", "a") == svg(before[angles].draw(), "a", "a")


def test_it_keeps_what_was_compared_with_theory(study: Path, tmp_path: Path):
    run = shutil.copytree(study / "explicit-seed0", tmp_path / "tiny" / "explicit-seed0")
    assert main(["theory", "compare", str(run)]) == 0
    assert main(["study", "pack", str(run.parent)]) == 0
    again = unpacked(tmp_path / "tiny.tar.xz", tmp_path / "again")
    drawn = [name for name in figures(again) if name.endswith("-theory")]
    assert drawn == [name for name in figures(run.parent) if name.endswith("-theory")] != []


def test_an_unpacked_study_gets_more_seeds_and_keeps_its_runs(
    tiny_study: Callable[..., Path], packed: Path, tmp_path: Path, capsys
):
    again = unpacked(packed, tmp_path)
    before = {path: path.read_bytes() for path in again.glob("*-seed0/*")}
    file = tiny_study(tmp_path, "data/step.yaml", epochs=1)
    assert main(["study", "run", str(file), "--seeds", "2"]) == 0
    assert capsys.readouterr().out.count("finished before") == 2
    assert before == {path: path.read_bytes() for path in before}
    assert (again / "equilibrium-seed1" / "result.json").exists()
    page = (again / "report.html").read_text()
    assert "explicit-seed0" in page
    assert "equilibrium-seed1" in page


def test_the_same_study_gives_the_same_bytes(study: Path, packed: Path, tmp_path: Path):
    assert main(["study", "pack", str(study), str(tmp_path / "again.tar.xz")]) == 0
    assert (tmp_path / "again.tar.xz").read_bytes() == packed.read_bytes()


def test_it_overwrites_nothing(study: Path, packed: Path, refused: Callable[..., str]):
    before = packed.read_bytes()
    assert refused("study", "pack", str(study)) == (
        f"{packed} exists and is not overwritten: name another file, or remove it."
    )
    assert packed.read_bytes() == before


def test_without_a_finished_run_nothing_is_written(tmp_path: Path, refused: Callable[..., str]):
    (tmp_path / "none").mkdir()
    assert "holds no finished run" in refused("study", "pack", str(tmp_path / "none"))
    assert "holds no finished run" in refused("study", "pack", str(tmp_path / "absent"))
    assert [path.name for path in tmp_path.iterdir()] == ["none"]


def test_a_damaged_run_is_named(packed: Path, tmp_path: Path, refused: Callable[..., str]):
    again = unpacked(packed, tmp_path)
    (again / "explicit-seed0" / "geometry.npz").write_bytes(b"")
    said = refused("study", "pack", str(again))
    assert str(again / "explicit-seed0" / "geometry.npz") in said
    assert not again.with_name("tiny.tar.xz").exists()


@pytest.mark.parametrize(
    ("command", "file", "content", "word"),
    [
        ("run", "result.json", "{", "cannot be read as JSON"),
        ("report", "result.json", "[]", "not a list: remove it"),
        ("pack", "result.json", "{}", "lacks name, axes"),
        ("run", "config.yaml", "", "holds no keys"),
        ("run", "config.yaml", "a: [", "not valid YAML"),
    ],
)
def test_a_damaged_file_of_a_run_is_told_in_a_sentence(
    command: str,
    file: str,
    content: str,
    word: str,
    packed: Path,
    tiny_study: Callable[..., Path],
    tmp_path: Path,
    refused: Callable[..., str],
):
    study = tiny_study(tmp_path, "data/step.yaml", epochs=1)
    damaged = unpacked(packed, tmp_path) / "explicit-seed0" / file
    damaged.write_text(content)
    said = refused("study", command, str(study))
    assert str(damaged) in said
    assert word in said


def test_a_damaged_manifest_of_an_interrupted_run_is_told(
    packed: Path, tiny_study: Callable[..., Path], tmp_path: Path, refused: Callable[..., str]
):
    study = tiny_study(tmp_path, "data/step.yaml", epochs=1)
    run = unpacked(packed, tmp_path) / "explicit-seed0"
    (run / "result.json").unlink()
    (run / "manifest.json").write_text("{")
    assert f"{run}/manifest.json cannot be read as JSON" in refused("study", "run", str(study))


def test_a_single_run_is_packed_too(study: Path, tmp_path: Path):
    archive = tmp_path / "run.tar.xz"
    assert main(["study", "pack", str(study / "explicit-seed0"), str(archive)]) == 0
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    assert main(["study", "report", str(tmp_path / "explicit-seed0")]) == 0
