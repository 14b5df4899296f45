"""The names that may be followed are those that runs log."""

import json
from pathlib import Path

import pandas as pd
import pytest

from deq_collapse.config.monitors import logged_names
from deq_collapse.config.run import lightning_main

CONF = Path(__file__).parents[2] / "conf"
OF_ITS_CELL = {"train/lipschitz_bound", "train/error_bound", "test/error_bound", "fit/jacobian"}
"""That no run of these parts logs."""
SCHEDULE = {"class_path": "deq_collapse.callbacks.JacobianSchedule", "init_args": {"weights": {0: 0.1}}}
RADIUS = {"class_path": "deq_collapse.callbacks.SpectralRadius"}
NORM = {"class_path": "deq_collapse.callbacks.GradientNorm"}
STEP = {"class_path": "deq_collapse.callbacks.LastStep"}


def _names(directory: Path, *configs: str, **content: object) -> tuple[set[str], set[str]]:
    """The names known of a run before it is fitted, and those in the history that it leaves."""
    named = [part for config in configs for part in ("--config", str(CONF / config))]
    small = ["--model.encoder.init_args.width", "8", "--trainer.max_epochs", "1"]
    where = ["--trainer.default_root_dir", str(directory), "--config", json.dumps(content)]
    cli = lightning_main(["fit", "--config", str(CONF / "run/digits.yaml"), *named, *small, *where])
    history = pd.read_csv(directory / "history.csv")
    known = set(logged_names(cli.model, cli.datamodule, cli.trainer.callbacks))
    return known, set(history.split + "/" + history.metric) - {"fit/learning_rate"}


@pytest.mark.parametrize("data", ["data/balanced.yaml", "data/step.yaml", "data/long_tailed.yaml"])
def test_of_an_explicit_network(data: str, tmp_path: Path):
    known, seen = _names(tmp_path, data, "model/explicit.yaml")
    assert known == seen


def test_of_an_explicit_network_with_a_jacobian_term(tmp_path: Path):
    weighed = {"model": {"refinement": {"init_args": {"jacobian_weight": 0.1}}}}
    watched = {"trainer": {"callbacks+": [NORM]}}
    known, seen = _names(tmp_path, "data/step.yaml", "model/explicit.yaml", **weighed, **watched)
    assert known == seen
    assert {"fit/jacobian", "fit/gradient_longer"} < seen


def test_of_an_equilibrium(tmp_path: Path):
    watched = {"trainer": {"callbacks+": [SCHEDULE, RADIUS, NORM, STEP]}}
    known, seen = _names(tmp_path, "data/step.yaml", "model/equilibrium.yaml", **watched)
    assert seen <= known
    assert known - seen <= OF_ITS_CELL
