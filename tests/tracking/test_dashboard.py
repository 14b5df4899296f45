"""A study on Weights & Biases: its dashboard and its report, on a stand-in server or as files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from deq_collapse.cli import main
from deq_collapse.tracking.upload import runs_table

MakeStudy = Callable[..., Path]
GRID = [
    {"imbalance": imbalance, "refinement": refinement, "seed": seed}
    for imbalance in ("balanced", "step_ka3_r10")
    for refinement in ("explicit", "equilibrium")
    for seed in "01"
]


@pytest.fixture
def study(make_study: MakeStudy) -> Path:
    """A finished study with its report and a picture."""
    directory = make_study(imbalances=("balanced",), seeds=2)
    for record in directory.glob("*/result.json"):
        axes = json.loads(record.read_text())["axes"]
        (record.parent / "config.yaml").write_text(yaml.safe_dump({"study": "demo", "axes": axes}))
    (directory / "report.html").write_text("<h1>report</h1>")
    (directory / "figures").mkdir()
    (directory / "tables").mkdir()
    (directory / "tables" / "accuracy.csv").write_text("setting,explicit\nbalanced,0.9\n")
    (directory / "tables" / "paired.csv").write_text("\n")  # one refinement has nothing to compare
    Image.new("RGB", (2, 2)).save(directory / "figures" / "balanced-curves.png")
    return directory


def section_of(view: Any) -> dict[str, Any]:
    """The part of a view's spec that says what is shown."""
    section: dict[str, Any] = view._to_model().spec.model_dump(mode="json", by_alias=True)["section"]
    return section


@pytest.fixture
def view() -> Any:
    from deq_collapse.tracking import dashboard

    return dashboard.workspace("demo", GRID, "me", "deq-collapse")


def test_the_dashboard_shows_the_studys_runs_averaged_over_seeds(view: Any) -> None:
    (runs,) = section_of(view)["runSets"]
    (shown,) = runs["filters"]["filters"]
    assert (shown["key"], shown["op"], shown["value"]) == ({"section": "run", "name": "group"}, "=", "demo")
    assert [key["name"] for key in runs["grouping"]] == ["jobType"]
    lines = [f"{one['imbalance']}-{one['refinement']}" for one in GRID[::2]]
    assert sorted(view.runset_settings.group_colors) == sorted(lines)
    assert len(set(view.runset_settings.group_colors.values())) == 4


def test_every_curve_is_by_completed_epochs_and_what_spans_decades_logarithmic(view: Any) -> None:
    panels = [p for s in section_of(view)["panelBankConfig"]["sections"] for p in s["panels"]]
    curves = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert {curve["xAxis"] for curve in curves} == {"epoch"}
    assert {curve["groupBy"] for curve in curves} == {"jobType"}
    logarithmic = {metric for curve in curves if curve["yLogScale"] for metric in curve["metrics"]}
    assert {"train/nc1", "train/nc2_etf_means", "train/nc3", "test/nc1"} < logarithmic
    assert "test/accuracy" not in logarithmic


def test_offline_the_dashboard_is_a_file_and_the_report_an_offline_run(study: Path, capsys: Any) -> None:
    assert main(["study", "dashboard", str(study), "--offline"]) == 0
    printed = capsys.readouterr().out
    content = json.loads((study / "wandb-dashboard.json").read_text())
    assert (content["name"], content["project"]) == ("demo: collapse", "deq-collapse")
    assert content["spec"]["section"]["runSets"][0]["filters"]["filters"][0]["value"] == "demo"
    (run,) = study.glob("wandb/offline-run-*")
    assert f"wandb sync {study}/wandb/offline-run-*" in printed
    (table,) = run.glob("files/media/table/runs_*.json")
    rows = json.loads(table.read_text())
    assert len(rows["data"]) == 4
    assert {"name", "axes/refinement", "test/accuracy", "train/nc1"} < set(rows["columns"])
    assert list(run.glob("files/media/images/figures_*.png"))


def test_the_definition_is_one_of_the_clients_own_schema(study: Path) -> None:
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.workspaces.internal import View, WorkspaceViewspec

    assert main(["study", "dashboard", str(study), "--offline"]) == 0
    content = json.loads((study / "wandb-dashboard.json").read_text())
    spec = WorkspaceViewspec.model_validate(content["spec"])
    assert (
        spec.model_dump(mode="json", by_alias=True, exclude_none=True) == content["spec"]
    )  # no key is left out
    named = {"entity": "me", "project": content["project"], "display_name": content["name"]}
    read = ws.Workspace._from_model(View(**named, name="nw-1", id="", spec=spec))
    assert read.name == content["name"]
    assert [section.name for section in read.sections][:2] == ["Collapse, training split", "Held-out images"]
    assert all(section.panels for section in read.sections)


def test_a_study_has_one_dashboard_saved_again(study: Path, wandb_server: Any, capsys: Any) -> None:
    for _ in range(2):
        assert main(["study", "dashboard", str(study), "--entity", "me"]) == 0
    (view,) = wandb_server.views.values()
    assert (view["entityName"], view["projectName"]) == ("me", "deq-collapse")
    assert view["displayName"] == "demo: collapse"
    assert f"{wandb_server.url}/me/deq-collapse?nw=" in capsys.readouterr().out
    ((run, created),) = wandb_server.runs.items()
    assert (created["groupName"], created["jobType"]) == ("demo", "report")
    assert set(wandb_server.artifacts["report-demo"]) == {
        "report.html",
        "results.json",
        "figures/balanced-curves.png",
        "tables/accuracy.csv",
        "tables/paired.csv",
    }
    assert {"runs", "tables/accuracy"} < set().union(*wandb_server.history[run])


def test_a_dashboard_that_was_removed_is_made_anew(study: Path, wandb_server: Any) -> None:
    assert main(["study", "dashboard", str(study)]) == 0
    wandb_server.views.clear()
    assert main(["study", "dashboard", str(study)]) == 0
    assert len(wandb_server.views) == 1


def test_a_server_that_refuses_is_told_in_one_sentence(study: Path, wandb_server: Any, capsys: Any) -> None:
    wandb_server.conduct = "refuses"
    assert main(["study", "dashboard", str(study)]) == 2
    assert "wandb does not take the dashboard" in capsys.readouterr().err


def test_the_table_of_runs_has_each_finished_run(study: Path) -> None:
    table = runs_table(study)
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 4
    assert set(table["axes/seed"]) == {"0", "1"}


def test_a_directory_without_runs_is_the_users_mistake(tmp_path: Path, capsys: Any) -> None:
    assert main(["study", "dashboard", str(tmp_path), "--offline"]) == 2
    assert "holds no runs yet" in capsys.readouterr().err
