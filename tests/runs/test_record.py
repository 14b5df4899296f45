"""What a study folder says, and that a broken one is told in one sentence."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deq_collapse.analysis.costs import COSTS
from deq_collapse.errors import UserError
from deq_collapse.runs.study import read_study

MakeStudy = Callable[..., Path]
RUN = "step_ka3_r10-equilibrium-seed0"


def test_reads_every_run_with_its_files(make_study: MakeStudy) -> None:
    study = read_study(make_study())
    assert [run.name for run in study.runs] == [
        "balanced-explicit-seed0",
        "balanced-equilibrium-seed0",
        "step_ka3_r10-explicit-seed0",
        "step_ka3_r10-equilibrium-seed0",
    ]
    run = study.runs[-1]
    assert run.majority == (0, 1, 2)
    assert run.solver is not None
    assert run.solver.tolerance == 1e-4
    assert run.geometry.class_means_train.shape == run.geometry.weight.shape == (10, 24)
    assert run.environment["commit"] == "0123abc"


def test_curve_ends_at_the_recorded_value(make_study: MakeStudy) -> None:
    run = read_study(make_study()).runs[0]
    curve = run.curve("train", "nc1")
    assert curve.index[0] == 1
    assert curve.index[-1] == run.epochs
    assert curve.iloc[-1] == pytest.approx(run.train["nc1"])
    assert run.curve("train", "accuracy_minority").empty


def test_cells_put_seeds_together_and_explicit_first(make_study: MakeStudy) -> None:
    study = read_study(make_study(refinements=("equilibrium", "explicit"), seeds=2))
    assert list(study.cells) == ["balanced", "step, K_A=3, R=10"]
    for cell in study.cells.values():
        assert list(cell) == ["explicit", "equilibrium"]
        assert [run.axes["seed"] for run in cell["explicit"]] == ["0", "1"]


@pytest.mark.parametrize(
    ("values", "terminal", "collapsed", "variability"),
    [
        ({}, 5, True, True),
        ({"nc1": 0.051}, 5, False, False),
        ({"nc2_etf_means": 0.31}, 5, False, True),
        ({"nc3": 0.126}, 5, False, True),
        ({"nc3": None}, 5, False, True),
        ({}, None, False, False),
    ],
)
def test_collapse_asks_for_every_level_and_the_terminal_phase(
    make_study: MakeStudy,
    values: dict[str, float | None],
    terminal: int | None,
    collapsed: bool,
    variability: bool,
) -> None:
    def edit(results: dict[str, Any]) -> None:
        train = results["runs"][0]["train"] | {"nc1": 0.05, "nc2_etf_means": 0.3, "nc3": 0.125} | values
        results["runs"][0].update(train=train, terminal_epoch=terminal)

    run = read_study(make_study(edit=edit)).runs[0]
    assert (run.collapsed, run.variability_collapsed) == (collapsed, variability)


@pytest.mark.parametrize(
    ("worst", "train", "test", "solved_train", "solved_test"),
    [
        (0.001, 0.0, 0.001, True, True),
        (0.0, float(np.float32(1e-3)), 0.0, True, True),
        (0.0011, 0.0, 0.0, False, False),
        (0.0, 0.002, 0.0, False, False),
        (0.0, 0.0, 0.002, True, False),
        (None, 0.0, 0.0, False, False),  # it ended before it solved for any fixed point
    ],
)
def test_a_split_is_solved_where_few_of_its_images_and_of_those_in_training_missed_the_tolerance(
    make_study: MakeStudy,
    worst: float | None,
    train: float,
    test: float,
    solved_train: bool,
    solved_test: bool,
) -> None:
    def edit(results: dict[str, Any]) -> None:
        record = next(record for record in results["runs"] if record["solver"])
        record["solver"]["unconverged_worst_epoch"] = worst
        record["train"]["unconverged"], record["test"]["unconverged"] = train, test

    found = read_study(make_study(edit=edit)).runs
    run = next(run for run in found if run.solver)
    assert (run.solved("train"), run.solved("test"), run.converged) == (
        solved_train,
        solved_test,
        solved_test,
    )
    assert all(run.converged for run in found if not run.solver)


@pytest.mark.parametrize("name", ["results.json", f"{RUN}/history.csv", f"{RUN}/geometry.npz"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbage"])
def test_a_broken_file_is_named_in_one_sentence(make_study: MakeStudy, name: str, damage: str) -> None:
    study = make_study()
    path = study / name
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        # The table is cut inside its heading: a cut later on is still a table.
        cut = 12 if path.suffix == ".csv" else len(whole) // 2
        path.write_bytes({"empty": b"", "cut": whole[:cut], "garbage": b"\xff\x00\n\x07,\n"}[damage])
    with pytest.raises(UserError, match=path.name) as caught:
        read_study(study)
    assert "\n" not in str(caught.value)


def test_a_value_that_is_no_number_names_the_history(make_study: MakeStudy) -> None:
    study = make_study()
    with (study / RUN / "history.csv").open("a") as file:
        file.write("61,700,train,nc1,lots\n")
    with pytest.raises(UserError, match=r"history\.csv"):
        read_study(study)


@pytest.mark.parametrize("key", ["name", "train", "solver", "parameters"])
def test_a_record_without_a_key_is_told(make_study: MakeStudy, key: str) -> None:
    study = make_study(edit=lambda results: results["runs"][1].pop(key))
    with pytest.raises(UserError, match=f"'{key}' is missing"):
        read_study(study)


def test_arrays_of_different_runs_do_not_mix(make_study: MakeStudy) -> None:
    study = make_study()
    path = study / RUN / "geometry.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "weight": arrays["weight"][:, 1:]})
    with pytest.raises(UserError, match="do not belong together"):
        read_study(study)


def test_results_that_are_a_list_are_refused(make_study: MakeStudy) -> None:
    study = make_study()
    (study / "results.json").write_text(json.dumps([]))
    with pytest.raises(UserError, match="one JSON object"):
        read_study(study)


@pytest.mark.parametrize(
    ("nc1", "error", "since"),
    [
        ([0.9, 0.04, 0.03, 0.02], [0, 0, 0, 0], 5),
        ([0.9, 0.04, 0.06, 0.02], [0, 0, 0, 0], 20),
        ([0.9, 0.04, 0.03, 0.02], [0, 0, 0.01, 0], 20),
        ([0.05, 0.04, 0.03, 0.02], [0, 0, 0, 0], 1),
        ([0.01, 0.01, 0.01, 0.06], [0, 0, 0, 0], None),
    ],
)
def test_collapsed_since_the_first_measurement_after_which_no_level_was_missed(
    make_study: MakeStudy, nc1: list[float], error: list[float], since: int | None
) -> None:
    levels = {"nc1": nc1, "error": error, "nc2_etf_means": [0.3] * 4, "nc3": [0.125] * 4}
    rows = [
        (epoch, epoch, "train", metric, value)
        for metric, values in levels.items()
        for epoch, value in zip((1, 5, 10, 20), values, strict=True)
    ]
    history = pd.DataFrame(rows, columns=["epoch", "step", "split", "metric", "value"])
    run = read_study(make_study()).runs[0]
    train = run.train | {metric: values[-1] for metric, values in levels.items()}
    run = replace(run, history=history, train=train, terminal_epoch=1, epochs=20, steps=200)
    assert run.collapsed_epoch == since
    (minutes,) = (cost.value(run) for cost in COSTS if cost.key == "minutes_to_collapse")
    assert run.seconds_per_step is not None
    assert minutes == (since and pytest.approx(10 * since * run.seconds_per_step / 60))
