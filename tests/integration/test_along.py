"""``deq-collapse along``: what it writes for runs, finished or not, and what it refuses."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from deq_collapse.cli import main

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def runs(small_fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a finished run of either refinement."""
    directory = tmp_path_factory.mktemp("runs")
    assert main(small_fit(directory / "a", "--model.refinement.init_args.depth", "2")) == 0
    assert main(small_fit(directory / "b", refinement="equilibrium")) == 0
    return directory


def test_it_measures_what_the_fit_did_and_draws_all_runs(runs: Path, capsys):
    before = {path: path.read_bytes() for path in runs.glob("*/along.csv")}
    assert len(before) == 2
    assert main(["along", str(runs / "a"), str(runs / "b")]) == 0
    assert before == {path: path.read_bytes() for path in runs.glob("*/along.csv")}
    assert {path.name for path in runs.iterdir() if path.is_file()} == {"along.svg", "along.png", "along.pdf"}
    words = (runs / "along.svg").read_text()
    for word in ("explicit, train", "DEQ, test", "NC1", "NC2", "NC3", "evaluations of a block"):
        assert word in words
    assert "Figure:" in capsys.readouterr().out


def test_an_interrupted_run_is_measured_from_its_checkpoint_by_the_modules_named(runs: Path, tmp_path: Path):
    shutil.copytree(runs / "a", tmp_path / "run", ignore=shutil.ignore_patterns("along.csv", "result.json"))
    args = [
        "along",
        str(tmp_path / "run"),
        "--modules",
        "encoder.2",
        "refinement",
        "--figure",
        str(tmp_path / "f"),
    ]
    assert main(args) == 0
    assert not (tmp_path / "run" / "along.csv").exists()  # that is of the run's own modules
    table = pd.read_csv(tmp_path / "run" / "along-modules.csv")
    points = table[["evaluations", "module"]].drop_duplicates().values.tolist()
    assert points == [[-1, "encoder.2"], [0, "encoder"], [1, "refinement"]]
    before = pd.read_csv(runs / "a" / "along.csv")
    assert table[table.evaluations == 1].value.tolist() == before[before.evaluations == 2].value.tolist()
    assert (tmp_path / "f.pdf").exists()
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_pattern_leaves_out_what_is_never_called(runs: Path, tmp_path: Path):
    shutil.copytree(runs / "b", tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert main(["along", str(tmp_path / "run"), "--modules", "refinement.*"]) == 0
    assert "refinement.iterate" in set(pd.read_csv(tmp_path / "run" / "along-modules.csv").module)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (tmp_path / "run" / "along-modules.svg").exists()


def test_modules_named_in_the_configuration_are_watched_and_are_not_the_run(small_fit, tmp_path: Path):
    named = ["--along.modules", "[encoder.0, refinement]"]
    assert main(small_fit(tmp_path / "run", *named, epochs=1)) == 0
    assert set(pd.read_csv(tmp_path / "run" / "along.csv").module) == {"encoder.0", "encoder", "refinement"}
    (tmp_path / "run" / "result.json").unlink()
    assert main(small_fit(tmp_path / "run", "--ckpt_path", "last", epochs=1)) == 0
    assert set(pd.read_csv(tmp_path / "run" / "along.csv").module) == {"encoder", "refinement.blocks.0"}


def test_mistakes_are_told_in_one_sentence(small_fit, runs: Path, tmp_path: Path, refused: Refused):
    assert f"{tmp_path}/nowhere holds no run" in refused("along", str(runs / "a"), str(tmp_path / "nowhere"))
    told = refused("along", str(runs / "a"), "--modules", "refinement.block.*")
    assert "no module refinement.block.*; did you mean refinement.blocks" in told
    assert "classifier cannot be watched" in refused("along", str(runs / "a"), "--modules", "classifier")
    told = refused(*small_fit(tmp_path / "run", "--along.modules", "[refinement.block]"))
    assert "no module refinement.block; did you mean refinement.blocks" in told
    assert not (tmp_path / "run").exists()
    shutil.copytree(runs / "a", tmp_path / "cut")
    (tmp_path / "cut" / "last.ckpt").write_bytes((runs / "a" / "last.ckpt").read_bytes()[:1000])
    assert "not a whole checkpoint" in refused("along", str(tmp_path / "cut"))
    (tmp_path / "cut" / "last.ckpt").unlink()
    assert "there is no last.ckpt" in refused("along", str(tmp_path / "cut"))
    (tmp_path / "file").touch()
    assert "cannot be written" in refused("along", str(runs / "a"), "--figure", str(tmp_path / "file" / "f"))
