"""docs/sweeps.md: wandb's own agent starts the command of the page, and Optuna's search runs as it stands."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from wandb.wandb_agent import Agent

PAGE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_wandbs_agent_starts_a_run_of_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = yaml.safe_load(block("yaml"))
    chosen = {"model.optimizer.init_args.lr": 0.0625, "model.optimizer.init_args.weight_decay": 0.001}
    assert chosen.keys() == sweep["parameters"].keys()
    small = [
        "--trainer.max_epochs=1",
        "--model.encoder.init_args.width=8",
        "--trainer.logger.init_args.mode=offline",
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_DIR"):  # that the agent sets
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    program = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{program}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    agent = Agent(None, None, sweep_id="sweep1")
    agent._sweep_command = [*sweep["command"][:-1], *small, sweep["command"][-1]]
    args: dict[str, Any] = {key: {"value": value} for key, value in chosen.items()}
    agent._command_run({"type": "run", "run_id": "run1", "program": None, "args": args})
    assert agent._run_processes["run1"].wait() == 0
    run = tmp_path / "outputs/runs/sweep-run1"
    options = yaml.safe_load((run / "config.yaml").read_text())["model"]["optimizer"]["init_args"]
    assert (options["lr"], options["weight_decay"]) == (0.0625, 0.001)
    assert "accuracy" in json.loads((run / "result.json").read_text())["validation"]
    assert (run / "wandb-id.txt").read_text().strip() == "run1"
    assert [path.name[-4:] for path in (run / "wandb").glob("offline-run-*")] == ["run1"]


def test_optuna_searches_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    variables: dict[str, Any] = {"__name__": "search"}
    exec(compile(block("python"), "search.py", "exec"), variables)
    trials = variables["study"].trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2
    assert len({trial.params["lr"] for trial in trials}) == 2
    assert all((tmp_path / f"outputs/search/trial{n}/result.json").exists() for n in range(2))
