"""The package without its repository: a wheel, installed elsewhere, used from a directory of one's own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from deq_collapse import __version__
from deq_collapse.cli import main
from deq_collapse.cli.conf import first_sentence
from deq_collapse.config.files import SHIPPED, expand_parts, found

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

STUDY = """
name: two
config: [conf/run/digits.yaml, conf/model/common.yaml, {trainer: {max_epochs: 1}}]
axes:
  refinement: {explicit: conf/refinement/explicit.yaml, equilibrium: conf/refinement/equilibrium.yaml}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the wheel is installed into, built from what git would hand out."""
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("deq_collapse", "conf"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(source), str(source)]
    subprocess.run(build, check=True)
    (wheel,) = source.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(place), str(wheel)], check=True)
    return place


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    def program(*args: str, cwd: Path = tmp_path) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "deq_collapse.cli", *args]
        return subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, check=False)

    return program


def test_the_wheel_has_every_configuration_and_the_version_of_the_package(site: Path, run: Run) -> None:
    ours = {path.relative_to(SHIPPED): path.read_bytes() for path in SHIPPED.rglob("*.yaml")}
    theirs = site / "deq_collapse" / "conf"
    assert {path.relative_to(theirs): path.read_bytes() for path in theirs.rglob("*.yaml")} == ours
    assert not theirs.is_symlink()
    assert run("--version").stdout == f"deq-collapse {__version__}\n"
    listed = run("conf").stdout
    assert all(f"conf/{name.as_posix()}" in listed for name in ours)
    assert "@inproceedings{bai2019deep," in run("cite").stdout
    assert "did you mean model.optimizer.init_args.lr?" in run("fit", "--model.lr", "0.1").stderr


def test_a_start_of_ones_own_fits_and_the_shipped_files_keep_their_names(run: Run, tmp_path: Path) -> None:
    assert run("init", "mine").returncode == 0
    fit = run(
        "fit", "--config", "run.yaml", "--name", "first", "--trainer.max_epochs", "1", cwd=tmp_path / "mine"
    )
    assert fit.returncode == 0, fit.stderr
    config = yaml.safe_load((tmp_path / "mine/outputs/runs/first/config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["encoder"]["class_path"] == "encoder.MyEncoder"
    again = run("init", "mine")
    assert (again.returncode, again.stdout) == (2, "")
    assert "nothing is overwritten" in again.stderr


def test_a_study_runs_and_is_reported_where_there_is_no_checkout(run: Run, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(STUDY, encoding="utf-8")
    done = run("study", "run", "two.yaml", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/studies/two/report.html").exists()
    status = run("study", "status", "conf/study/demo.yaml")
    assert "0 of 4 runs finished" in status.stdout


def test_a_file_in_the_working_directory_comes_before_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = Path("conf/data/digits.yaml")
    assert found(name) == SHIPPED / "data/digits.yaml"
    name.parent.mkdir(parents=True)
    name.write_text("data: {batch_size: 7}", encoding="utf-8")
    assert found(name) == name
    assert yaml.safe_load(expand_parts(["--config", str(name)])[1]) == {"data": {"batch_size": 7}}
    assert found(Path("conf/data/none.yaml")) == Path("conf/data/none.yaml")


def test_every_shipped_configuration_says_what_it_is() -> None:
    assert all(len(first_sentence(path).split()) > 2 for path in SHIPPED.rglob("*.yaml"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["stduy", "run"], "did you mean study?"),
        (["xyz"], "it is one of fit, validate"),
        (["conf", "los"], "there are data, family"),
        (["fit", "--config", "conf/run/none.yaml"], "conf/run/none.yaml cannot be read"),
    ],
)
def test_a_wrong_name_is_one_sentence(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
