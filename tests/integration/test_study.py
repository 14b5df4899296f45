"""A study by its command: what it runs, keeps, records and prints."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from deq_collapse.cli import main

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def study(tiny_study: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished study."""
    directory = tmp_path_factory.mktemp("study")
    assert main(["study", "run", str(tiny_study(directory))]) == 0
    return directory / "tiny"


def test_a_study_leaves_records_and_a_report(study: Path):
    results = json.loads((study / "results.json").read_text())
    assert [run["name"] for run in results["runs"]] == ["explicit-seed0", "equilibrium-seed0"]
    assert [run["axes"]["refinement"] for run in results["runs"]] == ["explicit", "equilibrium"]
    assert results["failed"] == []
    assert results["runs"][0]["parameters"] == results["runs"][1]["parameters"]
    assert results["runs"][1]["solver"]["gradient"] == "ift"
    page = (study / "report.html").read_text()
    assert "not collapsed" in page
    assert "://" not in page


def test_a_finished_study_is_kept(study: Path, capsys):
    before = {path: path.read_bytes() for path in study.glob("*/*") if path.is_file()}
    assert main(["study", "run", str(study.parent / "tiny.yaml")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("finished before") == 2
    assert f"Report: {study / 'report.html'}" in printed
    assert before == {path: path.read_bytes() for path in study.glob("*/*") if path.is_file()}


def test_a_part_of_a_study_runs_and_the_rest_waits(tiny_study: Callable[..., Path], tmp_path: Path, capsys):
    file = str(tiny_study(tmp_path, epochs=1))
    assert main(["study", "run", file, "--only", "refinement=explicit"]) == 0
    assert "[1/1] explicit-seed0  finished" in capsys.readouterr().out
    cells = json.loads((tmp_path / "tiny/results.json").read_text())["cells"]
    assert [(cell["name"], cell["state"]) for cell in cells] == [
        ("explicit-seed0", "finished"),
        ("equilibrium-seed0", "waiting"),
    ]
    assert main(["study", "status", file]) == 0
    told = capsys.readouterr().out
    assert "1 of 2 runs finished, 1 waiting" in told
    assert f"`deq-collapse study run {file}` continues" in told
    assert main(["study", "run", file]) == 0
    assert capsys.readouterr().out.count("finished before") == 1
    assert len(json.loads((tmp_path / "tiny/results.json").read_text())["runs"]) == 2


def test_the_report_and_its_figures_are_made_anew(study: Path):
    (study / "report.html").unlink()
    assert main(["study", "report", str(study)]) == 0
    assert (study / "report.html").exists()
    kinds = {path.name.split("-")[-1] for path in (study / "figures").iterdir()}
    figures = ("curves", "along", "angles", "features")
    assert kinds == {f"{figure}.{kind}" for figure in figures for kind in ("svg", "png", "pdf")}


def test_a_directory_of_single_runs_gets_a_report_too(study: Path, tmp_path: Path):
    for run in ("explicit-seed0", "equilibrium-seed0"):
        (tmp_path / run).symlink_to(study / run)
    assert main(["study", "report", str(tmp_path)]) == 0
    assert "equilibrium-seed0" in (tmp_path / "report.html").read_text()


NOISY = """
from deq_collapse.data import Source


class Noisy(Source):
    def __init__(self, source: Source) -> None:
        self.source = source

    def load(self, split):
        images, labels = self.source.load(split)
        return images, 9 - labels
"""


def test_a_study_on_a_data_set_of_a_data_set_goes_on(
    tiny_study: Callable[..., Path], tmp_path: Path, monkeypatch, capsys
):
    (tmp_path / "noisy_digits.py").write_text(NOISY)
    monkeypatch.chdir(tmp_path)
    inner = {"class_path": "deq_collapse.data.Digits"}
    model = str(CONF / "model" / "explicit.yaml")
    axes = {"refinement": {"once": model, "twice": [model, {"model.refinement.init_args.depth": 2}]}}
    source = {"class_path": "noisy_digits.Noisy", "init_args": {"source": inner}}
    file = tiny_study(tmp_path / "study", epochs=1, axes=axes, seeds=[0])
    content = yaml.safe_load(file.read_text())
    content["override"].append({"data": {"source": source, "imbalance": {"class_path": "Natural"}}})
    file.write_text(yaml.safe_dump(content))
    for seeds in ("1", "2"):
        assert main(["study", "run", str(file), "--seeds", seeds]) == 0, capsys.readouterr()
    assert len(json.loads((tmp_path / "study/tiny/results.json").read_text())["runs"]) == 4
