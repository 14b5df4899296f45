"""docs/record.md and docs/configuration.md: every file, name, column and key that there is stands there."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from deq_collapse import callbacks
from deq_collapse.cli import main
from deq_collapse.config.keys import parser_keys
from deq_collapse.config.study_keys import KEYS
from deq_collapse.metrics import TABLE
from deq_collapse.results import read_study

DOCS = Path(__file__).parents[2] / "docs"
OPTIONAL = ("gradient_norm", "jacobian_schedule", "last_step", "spectral_radius")
BOUNDED = "{class_path: deq_collapse.models.ConvCell, init_args: {lipschitz: 0.9}}"


def named(page: str) -> list[set[str]]:
    """What is named as code in each row of a page's tables."""
    rows = [row for row in (DOCS / page).read_text(encoding="utf-8").splitlines() if row.startswith("| ")]
    return [set(re.findall(r"`([^`]+)`", row)) for row in rows]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, small_fit: Callable[..., list[str]]) -> Path:
    """A DEQ under a step imbalance with all that watches it, and an explicit network on a long tail."""
    root = tmp_path_factory.mktemp("runs")
    watched = [part for name in OPTIONAL for part in ("--config", f"conf/trainer/{name}.yaml")]
    held = ["--data.validation", "5", "--data.imbalance.init_args.n_max", "100"]
    cell = ["--model.refinement.init_args.cell", BOUNDED, "--name", "deq"]
    deq = small_fit(root / "deq", *watched, *held, *cell, refinement="equilibrium")
    tail = ["--config", "conf/data/long_tailed.yaml", "--model.many", "60", "--name", "tail"]
    for args in (deq, small_fit(root / "tail", *tail)):
        assert main(args) == 0
    assert main(["predict", "--config", str(root / "deq" / "config.yaml"), "--ckpt_path", "last"]) == 0
    return root


def test_every_logged_value(runs: Path) -> None:
    rows = named("record.md")
    history = pd.concat([pd.read_csv(runs / name / "history.csv") for name in ("deq", "tail")])
    logged = set(history.metric) - TABLE.keys()
    assert {"fit", "train", "validation", "test"} == set(history.split)
    assert {"gradient_longer", "error_bound", "backward_residual", "accuracy_few", "last_step_q90"} <= logged
    shorter = {"backward_residual_median", "backward_residual_q90"}  # "the same with `backward_`"
    assert logged - shorter - {"backward_residual"} <= set().union(*rows)


def test_every_file_of_a_run(runs: Path) -> None:
    assert {path.name for path in (runs / "deq").iterdir()} <= set().union(*named("record.md"))


def test_every_key_of_a_result_and_column_of_the_runs(runs: Path) -> None:
    result = json.loads((runs / "deq" / "result.json").read_text())
    below = [values for key, values in result.items() if isinstance(values, dict) and key != "axes"]
    keys = {key for values in (result, *below) for key in values} - TABLE.keys()
    told = set().union(*named("record.md"))
    assert {key.removeprefix("backward_") for key in keys} <= told
    columns = read_study(runs).runs.columns
    parts = ("train_", "validation_", "test_", "end_", "parameters_", "solver_", "axis_")
    alone = {column for column in columns if not column.startswith(parts)}
    assert alone <= told


def test_every_table_and_its_columns(runs: Path) -> None:
    told = set().union(*named("record.md"))
    for path in (DOCS / "results").glob("*/tables/*.csv"):
        if path.name.startswith("equal_loss_"):
            assert "equal_loss_<refinement>.csv" in told
        else:
            assert path.name in told
        if path.name not in ("runs.csv", "costs.csv"):
            columns = {re.sub(r"_(mean|std|n)$", "", column) for column in pd.read_csv(path, nrows=0)}
            assert columns - {"epoch"} <= told, path


def test_every_key_of_a_run_and_of_a_study() -> None:
    told = set().union(*named("configuration.md"))
    keys = {key for key in parser_keys() if not key.startswith("trainer.")} - {"config"}
    assert keys <= told
    assert set(KEYS) <= told


def test_no_key_that_there_is_not() -> None:
    told = set().union(*named("configuration.md"))
    assert {name for name in told if re.fullmatch(r"(data|model|along|schedule)\.\w+", name)} <= {
        *parser_keys()
    }


def test_every_callback_to_add() -> None:
    """Those that a run does not add itself are the ones with an example in their docstring."""
    added = {
        name
        for name in callbacks.__all__
        if "In a configuration:" in (getattr(callbacks, name).__doc__ or "")
    }
    assert len(added) == 6
    assert added <= set().union(*named("configuration.md"))
