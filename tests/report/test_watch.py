"""Watching a study: a page that shows what is finished and what is not, and a command that ends cleanly."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from deq_collapse.cli import main
from deq_collapse.errors import UserError
from deq_collapse.report.watch import Watch, watch
from deq_collapse.runs.along import write_along
from deq_collapse.study.plan import Plan, Planned, write_plan

RELOADS = "location.reload()"
MakeStudy = Callable[..., Path]


def unfinished(directory: Path, *names: str) -> Path:
    """Leaves of runs what they have after seven epochs."""
    for name in names:
        run = directory / name
        axes = dict(zip(("imbalance", "refinement", "seed"), name.split("-"), strict=True))
        content = {"study": "demo", "axes": axes, "trainer": {"max_epochs": 60}}
        (run / "config.yaml").write_text(yaml.safe_dump(content))
        history = pd.read_csv(run / "history.csv")
        history[history["epoch"] <= 7].to_csv(run / "history.csv", index=False)
        for file in ("result.json", "geometry.npz", "environment.json"):
            (run / file).unlink()
    return directory


@pytest.fixture
def study(make_study: MakeStudy) -> Path:
    """Two runs in their eighth epoch."""
    directory = make_study(imbalances=("balanced",))
    (directory / "results.json").unlink()
    return unfinished(directory, "balanced-explicit-seed0", "balanced-equilibrium-seed0")


@pytest.fixture
def study_file(study: Path) -> Path:
    """The study file of that study."""
    content = {
        "name": "demo",
        "output": str(study.parent),
        "axes": {"imbalance": {"balanced": {}}, "refinement": {"explicit": {}, "equilibrium": {}}},
    }
    path = study.parent / "demo.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_page_shows_finished_and_unfinished_runs(make_study: MakeStudy) -> None:
    def edit(results: dict[str, Any]) -> None:
        results["cells"] = [{"name": run["name"], "axes": run["axes"]} for run in results["runs"]]
        del results["runs"][1]

    study = unfinished(make_study(imbalances=("balanced",), edit=edit), "balanced-equilibrium-seed0")
    Watch(study, 10).look()
    page = (study / "watch.html").read_text()
    assert "2 runs: 1 finished, 1 interrupted" in page
    row = re.search(r'<a href="balanced-equilibrium-seed0/">.*?</tr>', page, re.DOTALL)
    assert row
    assert "7 of 60" in row[0]
    assert 'aria-label="So far: balanced"' in page
    assert 'href="balanced-explicit-seed0/"' in page  # of the report
    assert "://" not in page


def test_the_page_is_written_when_something_has_changed(study: Path) -> None:
    watched = Watch(study, 10)
    watched.look()
    page = study / "watch.html"
    page.write_text("as it was")
    watched.look()
    assert page.read_text() == "as it was"
    table = study / "balanced-equilibrium-seed0" / "history.csv"
    table.write_text(table.read_text() + "8,88,train,nc1,0.5\n")
    watched.look()
    assert "8 of 60" in page.read_text()


def test_a_run_that_begins_is_found(study: Path) -> None:
    watched = Watch(study, 10)
    watched.look()
    later = study / "later"
    later.mkdir()
    (later / "config.yaml").write_text(yaml.safe_dump({"study": "demo", "axes": {}}))
    watched.look()
    assert "3 runs begun: 3 interrupted" in (study / "watch.html").read_text()


def test_the_page_loads_itself_anew_and_a_browser_lets_it(study: Path) -> None:
    Watch(study, 10).look()
    page = (study / "watch.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "script-src 'unsafe-inline'" in policy[1]
    assert page.rstrip().endswith("</script>\n</body>\n</html>")
    assert "setTimeout(again, 10 * 1000)" in page


def test_watching_ends_when_all_runs_of_a_study_file_have_ended(
    study: Path, study_file: Path, capsys: Any
) -> None:
    for run in study.glob("balanced-*"):
        (run / "state.json").write_text('{"state": "failed", "reason": "the loss is <nan>"}')
    assert main(["study", "watch", str(study_file)]) == 0
    assert "All runs have ended" in capsys.readouterr().out
    page = (study / "watch.html").read_text()
    assert "the loss is &lt;nan&gt;" in page
    assert RELOADS not in page


def test_the_last_page_has_what_a_run_left_after_its_record(make_study: MakeStudy) -> None:
    watched = Watch(make_study(imbalances=("balanced",)), 10)
    watched.look()
    run = next(watched.study.directory.glob("*-equilibrium-*"))
    points = [
        ("train", n, "refinement", metric, 0.1) for n in (0, 1) for metric in ("nc1", "nc2_etf_means", "nc3")
    ]
    write_along(pd.DataFrame(points, columns=["split", "evaluations", "module", "metric", "value"]), run)
    assert "along the computation" not in watched.page.read_text()
    watched.finish()
    assert "along the computation" in watched.page.read_text()


def test_ctrl_c_ends_watching_and_the_server_is_of_this_machine_alone(study: Path) -> None:
    command = ["-m", "deq_collapse.cli", "study", "watch", str(study), "--port", "0"]
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert address
        with urllib.request.urlopen(address[0]) as response:
            assert RELOADS in response.read().decode()
        with urllib.request.urlopen(f"{address[0]}watch.html") as response:
            assert "<h1>" in response.read().decode()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert RELOADS not in (study / "watch.html").read_text()


def test_a_port_that_is_taken_is_told(study: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be served"):
            watch(study, port=taken.getsockname()[1])


def test_a_study_that_is_given_more_seeds_is_not_over_before_they_are(make_study: MakeStudy) -> None:
    directory = make_study(imbalances=("balanced",))
    runs = json.loads((directory / "results.json").read_text())["runs"]
    file = directory.parent / "demo.yaml"
    axes = {"imbalance": {"balanced": {}}, "refinement": {"explicit": {}, "equilibrium": {}}}
    file.write_text(yaml.safe_dump({"name": "demo", "output": str(directory.parent), "axes": axes}))
    assert Watch(file, 0.1).over
    names = [run["name"] for run in runs] + [run["name"].replace("seed0", "seed1") for run in runs]
    plan = [Planned(name, {}, "", 60) for name in names]
    write_plan(directory, Plan("demo", "deq-collapse study run demo.yaml --seeds 2", tuple(plan)))
    for path in (file, directory):
        watched = Watch(path, 0.1)
        assert len(watched.study.runs) == 4
        assert not watched.over
