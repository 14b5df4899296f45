"""A study in real processes: killed, interrupted, started twice, with a run that fails, as cluster jobs."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from deq_collapse.cli import main
from deq_collapse.study.grid import read_study_file
from deq_collapse.study.runner import Runner, plan_study
from deq_collapse.study.state import is_locked, state_of

CONF = Path(__file__).parents[2] / "conf"
RUNS = ("explicit-seed0", "equilibrium-seed0")
COMMAND = "deq-collapse study run"


def start(path: Path, *args: str) -> subprocess.Popen[str]:
    """The study's command as a process of its own, as many threads as here."""
    command = [sys.executable, "-m", "deq_collapse.cli", "study", "run", str(path), *args]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def run(path: Path, jobs: int = 1, retry: bool = False) -> None:
    """What the command does before it draws the report."""
    study = read_study_file(path)
    Runner(study, plan_study(study, f"{COMMAND} {path}"), jobs, retry).run()


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Waits; fails where the process ends before."""
    while not happened():
        assert process is None or process.poll() is None, "the study ended before it could be interrupted"
        time.sleep(0.01)


def children_of(process: subprocess.Popen[str]) -> list[str]:
    """The commands of its children. Imports have some too, such as ldconfig, before the study begins."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = []
    for child in children:
        with contextlib.suppress(OSError):  # one that has ended
            commands.append(Path(f"/proc/{child}/cmdline").read_text())
    return commands


def epochs_of(run: Path) -> int:
    """Of its history; 0 before there is one."""
    path = run / "history.csv"
    return int(path.read_text().splitlines()[-1].split(",")[0]) if path.exists() else 0


@pytest.fixture(scope="module")
def whole(tiny_study: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 8 epochs that nobody interrupted."""
    path = tiny_study(tmp_path_factory.mktemp("whole"), epochs=8)
    run(path)
    return path.parent / "tiny"


def same_bits(a: Path, b: Path) -> bool:
    """Whether the runs in two directories have the same weights and wrote the same values."""
    first, second = (torch.load(run / "last.ckpt", weights_only=True)["state_dict"] for run in (a, b))
    assert first.keys() == second.keys()
    values = all((a / name).read_bytes() == (b / name).read_bytes() for name in ("history.csv", "along.csv"))
    return values and all(torch.equal(first[name], second[name]) for name in first)


def test_an_interrupted_study_goes_on_to_the_same_bits(
    tiny_study: Callable[..., Path], whole: Path, tmp_path: Path, capsys
):
    path = tiny_study(tmp_path, epochs=8)
    runs = [tmp_path / "tiny" / name for name in RUNS]
    for number, epochs in ((signal.SIGKILL, 2), (signal.SIGINT, 4)):
        process = start(path, "--jobs", "2")
        wait_until(lambda least=epochs: any(epochs_of(each) >= least for each in runs), process)
        os.kill(process.pid, number)
        told = process.communicate()[1]
        wait_until(lambda: not any(is_locked(each) for each in runs))
        assert any(state_of(each) == "interrupted" for each in runs)
        if number != signal.SIGKILL:
            assert process.returncode == 130
            assert told == f"Interrupted; the same command goes on where it stopped: {COMMAND} {path}\n"
    assert main(["study", "status", str(path)]) == 0
    assert f"`{COMMAND} {path}` continues." in capsys.readouterr().out
    run(path)
    assert all(same_bits(each, whole / each.name) for each in runs)
    results = json.loads((tmp_path / "tiny/results.json").read_text())
    assert [run["name"] for run in results["runs"]] == list(RUNS)


def test_runs_at_one_time_share_the_cores(tiny_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    run(tiny_study(tmp_path, epochs=1), jobs=2)
    told = [json.loads((tmp_path / "tiny" / name / "environment.json").read_text()) for name in RUNS]
    assert [environment["threads"] for environment in told] == [max(1, cores // 2)] * 2


def test_a_study_terminated_while_it_checks_says_so_and_writes_nothing(
    tiny_study: Callable[..., Path], tmp_path: Path
):
    study = start(tiny_study(tmp_path))
    wait_until(lambda: any("forkserver" in each for each in children_of(study)), study)  # which will check
    study.send_signal(signal.SIGTERM)
    _, said = study.communicate(timeout=60)
    assert study.returncode == 130
    again = f"{COMMAND} {tmp_path / 'tiny.yaml'}"
    assert said == f"Interrupted; the same command goes on where it stopped: {again}\n"
    assert not (tmp_path / "tiny").exists()


def test_two_processes_share_the_runs_and_run_none_twice(tiny_study: Callable[..., Path], tmp_path: Path):
    path = tiny_study(tmp_path, seeds=[0, 1])
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=run, args=(path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    logs = [log.read_text() for log in (tmp_path / "tiny").glob("*/log.txt")]
    assert len(logs) == 4
    assert all(log.count("epoch 1/2") == 1 for log in logs)
    results = json.loads((tmp_path / "tiny/results.json").read_text())
    assert len(results["runs"]) == 4


@pytest.mark.filterwarnings("ignore:in epoch .* the gradients of")
def test_a_failed_run_is_kept_with_its_reason_until_it_is_retried(
    tiny_study: Callable[..., Path], tmp_path: Path, capsys
):
    rate = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e30, "momentum": 0.0}}
    rates = {"diverging": {"model.optimizer": rate}, "sane": {}}
    path = tiny_study(tmp_path, axes={"refinement": {"e": str(CONF / "model/explicit.yaml")}, "rate": rates})
    directory = tmp_path / "tiny"
    run(path)
    results = json.loads((directory / "results.json").read_text())
    assert [run["name"] for run in results["runs"]] == ["e-sane-seed0"]
    assert [failure["name"] for failure in results["failed"]] == ["e-diverging-seed0"]
    assert "diverged at step" in results["failed"][0]["reason"]
    assert "Traceback" in (directory / "e-diverging-seed0/traceback.txt").read_text()
    log = (directory / "e-diverging-seed0/log.txt").read_text()

    capsys.readouterr()
    assert main(["study", "run", str(path)]) == 1
    assert "--retry runs it again" in capsys.readouterr().out
    assert (directory / "e-diverging-seed0/log.txt").read_text() == log
    run(path, retry=True)
    assert len((directory / "e-diverging-seed0/log.txt").read_text()) > len(log)
    assert json.loads((directory / "results.json").read_text())["failed"] == results["failed"]


class TestBeforeTheFirstRun:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ({"override": [{"trainer.max_epoch": 3}]}, "did you mean trainer.max_epochs"),
            ({"override": [{"model.encoder.init_args.depth": 0}]}, "depth 0"),
            ({"axes": {"R": {"data.imbalance.init_args.ratio": [10, 500]}}}, "the largest R allowed is 139"),
            ({"override": [{"trainer.max_epochs": -1}]}, "trainer.max_epochs is -1"),
        ],
        ids=("key", "encoder", "ratio", "endless"),
    )
    def test_a_mistake_names_the_run_and_leaves_nothing(
        self, tiny_study, content, words, tmp_path: Path, refused
    ):
        configs = [str(CONF / name) for name in ("run/digits.yaml", "data/step.yaml", "model/explicit.yaml")]
        told = refused("study", "run", str(tiny_study(tmp_path, **{"config": configs, "axes": {}} | content)))
        if "there is no key" not in told:  # which is answered before any run is built
            assert "the run " in told
            assert "seed0 cannot start" in told
        assert words in told
        assert not (tmp_path / "tiny").exists()

    def test_a_changed_configuration_is_not_mixed_with_the_runs_of_the_old(
        self, tiny_study, whole: Path, refused
    ):
        directory = shutil.copytree(whole, whole.parent / "changed" / "tiny")
        told = refused("study", "run", str(tiny_study(directory.parent, epochs=9)))
        assert f"{directory / RUNS[0]} holds a run of another configuration" in told
        assert "trainer.max_epochs is 8 there and 9 here" in told
        saved = directory / RUNS[0] / "config.yaml"
        config = yaml.safe_load(saved.read_text())
        del config["model"]["tau"]  # as if the run were from before there was such a key
        saved.write_text(yaml.safe_dump(config))
        silent = {"trainer.log_every_n_steps": 7}
        run(tiny_study(directory.parent, epochs=8, config=[str(CONF / "run/digits.yaml"), silent]))


@pytest.mark.filterwarnings("ignore:subprocess .* is still running")  # submitit leaves its jobs to themselves
def test_jobs_of_a_cluster_finish_a_study_and_a_run_may_have_several_processes(
    tiny_study: Callable[..., Path], tmp_path: Path
):
    """submitit's own local processes stand for SLURM; the second run is of two ranks."""
    axes = {"refinement": {"e": str(CONF / "model/explicit.yaml")}, "ranks": {"trainer.devices": [1, 2]}}
    path = tiny_study(tmp_path, axes=axes)
    assert main(["study", "submit", str(path), "--cluster", "local", "--set", "timeout_min=30"]) == 0
    wait_until(lambda: len(list((tmp_path / "tiny/jobs").glob("*_result.pkl"))) == 2)
    runs = [tmp_path / "tiny" / name for name in ("e-ranks1-seed0", "e-ranks2-seed0")]
    assert [state_of(each) for each in runs] == ["finished", "finished"]
    one, two = (json.loads((each / "result.json").read_text()) for each in runs)
    assert two["steps"] < one["steps"]
    assert len(json.loads((tmp_path / "tiny/results.json").read_text())["runs"]) == 2
