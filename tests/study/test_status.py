"""How a study stands is read from what its runs leave: states, progress, the time left."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from deq_collapse.cli import main
from deq_collapse.study.estimate import Standing, standings, time_left
from deq_collapse.study.plan import Plan, Planned, write_plan
from deq_collapse.study.results import results
from deq_collapse.study.state import is_locked, lock, state_of, write_state
from deq_collapse.study.status import left_in_words

HOLD = """
import sys
from pathlib import Path
from deq_collapse.study.state import lock
with lock(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def at_work(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a run."""
    command = [sys.executable, "-c", HOLD, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def history(directory: Path, epochs: int) -> None:
    directory.mkdir(exist_ok=True)
    rows = "".join(f"{e},{e},train,error,0.5\n{e},{e},train,nc1,2.0\n" for e in range(1, epochs + 1))
    (directory / "history.csv").write_text("epoch,step,split,metric,value\n" + rows)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Three seeds of two refinements, 10 epochs each."""
    cells = (
        Planned(f"{refinement}-seed{seed}", {"refinement": refinement, "seed": str(seed)}, f"{seed}", 10)
        for seed in range(3)
        for refinement in ("explicit", "equilibrium")
    )
    return Plan("tiny", "deq-collapse study run tiny.yaml", tuple(cells))


def test_a_lock_is_held_by_one_process_and_dies_with_it(tmp_path: Path):
    with at_work(tmp_path) as process:
        assert is_locked(tmp_path)
        with lock(tmp_path, patience=0) as free:
            assert not free
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not is_locked(tmp_path)
    with lock(tmp_path) as free:
        assert free


def test_to_look_at_a_lock_keeps_nobody_from_taking_it(tmp_path: Path):
    """Somebody watches a study as fast as possible while a run takes its lock."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            is_locked(tmp_path)

    watcher = threading.Thread(target=watch)
    with lock(tmp_path):
        pass
    watcher.start()
    try:
        for _ in range(20):
            with lock(tmp_path) as free:
                assert free
    finally:
        over.set()
        watcher.join()


def test_the_state_of_a_run_is_what_its_files_and_its_lock_say(tmp_path: Path):
    run = tmp_path / "run"
    assert state_of(run) == "waiting"
    with at_work(run):
        write_state(run, "running")
        assert state_of(run) == "running"
    assert state_of(run) == "interrupted"
    write_state(run, "failed", reason="ValueError: no")
    assert state_of(run) == "failed"
    with at_work(run):
        assert state_of(run) == "running"
    (run / "result.json").write_text("{}")
    assert state_of(run) == "finished"


def test_the_table_shows_every_cell_its_progress_and_why_it_failed(tmp_path: Path, plan: Plan, capsys):
    write_plan(tmp_path, plan)
    history(tmp_path / "explicit-seed0", 10)
    record = {"name": "explicit-seed0", "axes": {}, "class_counts": [2, 2], "majority": None, "solver": None}
    (tmp_path / "explicit-seed0/result.json").write_text(json.dumps(record))
    history(tmp_path / "equilibrium-seed0", 4)
    write_state(tmp_path / "equilibrium-seed0", "running", first_epoch=0, started=0.0)
    history(tmp_path / "explicit-seed1", 3)
    write_state(tmp_path / "explicit-seed1", "failed", reason="ValueError: loss is not finite")
    with at_work(tmp_path / "equilibrium-seed0"):
        assert main(["study", "status", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines() if line.startswith("│")] == [
        ["│", "explicit", "│", "finished", "│", "failed", "3/10", "│", "waiting", "│"],
        ["│", "equilibrium", "│", "running", "4/10", "│", "waiting", "│", "waiting", "│"],
    ]
    assert "explicit-seed1 failed: ValueError: loss is not finite" in shown
    assert "1 of 6 runs finished, 1 running, 1 failed, 3 waiting." in shown
    assert "--retry" in shown
    record = results(tmp_path, plan)
    assert [run["name"] for run in record["runs"]] == ["explicit-seed0"]
    assert record["failed"] == [{"name": "explicit-seed1", "reason": "ValueError: loss is not finite"}]
    states = {cell["name"]: cell["state"] for cell in record["cells"]}
    assert states["equilibrium-seed0"] == "interrupted"
    assert len(states) == 6


def test_a_study_file_has_a_status_before_its_first_run(tmp_path: Path, capsys):
    path = tmp_path / "new.yaml"
    path.write_text(f"name: new\noutput: {tmp_path}\naxes: {{R: {{data.R: [10, 50]}}}}\nseeds: [0, 1]\n")
    assert main(["study", "status", str(path)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("waiting") == 5
    assert "0 of 4 runs finished, 4 waiting. No run was timed yet." in shown
    assert not (tmp_path / "new").exists()


def test_a_directory_without_a_study_is_told(tmp_path: Path, capsys):
    assert main(["study", "status", str(tmp_path)]) == 2
    assert "study.json" in capsys.readouterr().err


class TestTimeLeft:
    @pytest.fixture
    def cells(self, tmp_path: Path, plan: Plan) -> list[Standing]:
        return standings(tmp_path, plan)

    def test_nothing_is_known_before_a_run_was_timed(self, cells: list[Standing]):
        assert {cell.state for cell in cells} == {"waiting"}
        assert time_left(cells) is None

    def test_runs_go_at_the_pace_of_those_most_like_them(self, cells: list[Standing]):
        cells[0] = replace(cells[0], state="finished", epoch=10, pace=1.0)
        cells[1] = replace(cells[1], state="finished", epoch=10, pace=3.0)
        assert time_left(cells) == pytest.approx(2 * 10 * 1.0 + 2 * 10 * 3.0)
        assert time_left(cells, jobs=2) == pytest.approx(40.0)

    def test_the_pace_of_a_run_that_went_on_is_that_of_its_last_attempt(self, tmp_path: Path, plan: Plan):
        """Of ten epochs eight were done before, and how long these took is not known any more."""
        name = plan.cells[0].name
        history(tmp_path / name, 10)
        (tmp_path / name / "result.json").write_text("{}")
        write_state(tmp_path / name, "finished", first_epoch=8, started=0.0, seconds=6.0)
        assert standings(tmp_path, plan)[0].pace == pytest.approx(3.0)

    def test_a_running_one_goes_at_its_own_and_no_run_is_split(self, cells: list[Standing]):
        cells = cells[:2]
        cells[0] = replace(cells[0], state="running", epoch=5, pace=2.0)
        cells[1] = replace(cells[1], state="running", epoch=9, pace=8.0)
        assert time_left(cells) == pytest.approx(10.0)

    def test_finished_and_failed_ones_take_no_time(self, cells: list[Standing]):
        done = [
            replace(cell, state=state) for cell, state in zip(cells, ["finished", "failed"] * 3, strict=True)
        ]
        assert time_left(done) == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "less than a minute left"),
        (61, "about 1 min left"),
        (3600, "about 1 h 0 min left"),
        (5000, "about 1 h 23 min left"),
        (1e5, "about 1 d 3 h left"),
    ],
)
def test_durations_in_words(seconds: float, words: str):
    assert left_in_words(seconds) == words
