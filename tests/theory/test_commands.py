"""The theory commands: what they leave, what they say of a run, and what they refuse."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from deq_collapse.cli import main
from deq_collapse.cli.theory.output import _beside
from deq_collapse.errors import UserError
from deq_collapse.runs.beside import read_beside
from deq_collapse.theory.compare import compare
from deq_collapse.theory.peeled import layer_peeled

COUNTS = (30, 30, 3, 3, 3)
SUFFIXES = {".csv", ".svg", ".png", ".pdf"}


def write_run(directory, weight, means, bias=None, counts=COUNTS, majority=(0, 1)):
    directory.mkdir(parents=True)
    arrays = {
        "weight": weight,
        "class_means_train": means,
        "bias": np.zeros(len(counts)) if bias is None else bias,
    }
    np.savez(directory / "geometry.npz", **arrays)
    record = {
        "name": directory.name,
        "axes": {},
        "class_counts": counts,
        "majority": majority,
        "solver": None,
    }
    (directory / "result.json").write_text(json.dumps(record))
    return directory


def optimal(weight_energy=1.0, feature_energy=4.0, offset=0.0):
    """Classifier, class means and bias of the layer-peeled optimum; the features share an offset."""
    found = layer_peeled(COUNTS, weight_energy, feature_energy, bias=True)
    left, values, right = torch.linalg.svd(found.logits)
    scale = (weight_energy / feature_energy) ** 0.25
    rows, means = left * values.sqrt() * scale, right.T * values.sqrt() / scale
    shift = torch.full((len(COUNTS),), offset, dtype=torch.float64)
    return rows.numpy(), (means + shift).numpy(), (found.bias - rows @ shift).numpy()


def test_what_was_compared_is_read_again_and_a_broken_file_is_named(tmp_path, capsys):
    run = write_run(tmp_path / "best", *optimal())
    assert read_beside(run, "best", "explicit", (0, 1)) is None
    assert main(["theory", "compare", str(run)]) == 0
    found = read_beside(run, "best", "explicit", (0, 1))
    assert np.allclose(found.grams["layer-peeled"], found.grams["this run"], atol=1e-4)
    assert np.allclose(np.linalg.norm(found.grams["SELI"], axis=(1, 2)), 1)
    assert f"{found.table['weight_energy'][0]:.3g}" in found.words
    (run / "theory.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"theory\.csv .* again"):
        read_beside(run, "best", "explicit", (0, 1))


@pytest.mark.parametrize(
    ("counts", "majority"), [((20,) * 5, ()), ((80, 40, 20, 10, 5), ()), (COUNTS, (0, 1))]
)
def test_balanced_long_tailed_and_step_runs_are_compared(tmp_path, counts, majority):
    generator = np.random.default_rng(0)
    weight, means = generator.standard_normal((2, 5, 8))
    run = write_run(tmp_path / "run", weight, means, counts=counts, majority=majority)
    assert main(["theory", "compare", str(run)]) == 0
    table = pd.read_csv(run / "theory.csv")
    assert table[["weights", "means", "logits"]].to_numpy().max() < 2
    assert table["loss_of_means"].iloc[0] > table["optimal_loss"].iloc[0]


def left_in(directory):
    return {path.suffix for path in directory.iterdir()}


def test_curve_leaves_its_table_and_figure(tmp_path, capsys):
    arguments = ["--classes", "4", "--majority", "2", "--largest", "10", "--directory", str(tmp_path)]
    assert main(["theory", "curve", *arguments]) == 0
    assert left_in(tmp_path) == SUFFIXES
    table = pd.read_csv(tmp_path / "curve.csv")
    assert set(table["program"]) == {"reduced", "full", "critical"}
    assert "Written" in capsys.readouterr().out


@pytest.mark.parametrize("energy", ["50", "1000"])
def test_curve_draws_where_no_ratio_is_critical(tmp_path, energy):
    """With energies this large minority rows stay apart at every ratio, and losses underflow."""
    energies = ["--weight-energy", energy, "--feature-energy", energy]
    arguments = ["--classes", "4", "--majority", "2", "--largest", "10", *energies]
    assert main(["theory", "curve", *arguments, "--directory", str(tmp_path)]) == 0
    assert left_in(tmp_path) == SUFFIXES
    assert "critical" not in set(pd.read_csv(tmp_path / "curve.csv")["program"])


@pytest.mark.parametrize("bound", ["operator", "energy"])
def test_branches_say_where_the_equilibrium_is_ahead(tmp_path, capsys, bound):
    arguments = ["--classes", "3", "--majority", "1", "--largest", "1", "--starts", "1", "--bound", bound]
    assert main(["theory", "branches", *arguments, "--directory", str(tmp_path)]) == 0
    assert left_in(tmp_path) == SUFFIXES
    assert "loss is lower at 1 of 1 points" in capsys.readouterr().out


def test_phase_draws_trained_networks(tmp_path, capsys):
    write_run(tmp_path / "runs" / "a", *optimal())
    arguments = ["--classes", "5", "--majority", "2", "--points", "3", "--runs", str(tmp_path / "runs")]
    assert main(["theory", "phase", *arguments, "--directory", str(tmp_path / "out")]) == 0
    assert left_in(tmp_path / "out") == SUFFIXES
    table = pd.read_csv(tmp_path / "out" / "phase-runs.csv")
    # The optimum of its own energies: what was measured is what was predicted.
    assert table["minority_cosine"][0] == pytest.approx(table["optimal_cosine"][0], abs=1e-4)
    assert table["minority_angle"][0] == pytest.approx(table["optimal_angle"][0], abs=0.1)
    assert table["energies"][0] == pytest.approx(4, rel=1e-4)
    assert "a " in capsys.readouterr().out


def test_a_network_at_the_optimum_is_at_distance_0_of_it_whatever_its_features_share(tmp_path, capsys):
    run = write_run(tmp_path / "best", *optimal(offset=5.0))
    assert main(["theory", "compare", str(run)]) == 0
    table = pd.read_csv(run / "theory.csv").set_index("target")
    assert table.loc["layer-peeled", ["weights", "means", "logits"]].max() < 1e-4
    assert table.loc["ETF", "means"] > 0.1
    assert table["loss_of_means"].iloc[0] == pytest.approx(table["optimal_loss"].iloc[0], rel=1e-6)
    assert "layer-peeled *" in capsys.readouterr().out
    assert left_in(run) >= SUFFIXES


def test_several_runs_share_a_table_and_a_figure(tmp_path):
    for name, shift in (("a", 0.0), ("b", 1.0)):
        write_run(tmp_path / "runs" / name, *optimal(offset=shift))
    assert (
        main(["theory", "compare", str(tmp_path / "runs"), "--figure", str(tmp_path / "out" / "both")]) == 0
    )
    assert left_in(tmp_path / "out") == SUFFIXES
    assert set(pd.read_csv(tmp_path / "out" / "both.csv")["run"]) == {"a", "b"}


def test_no_network_loses_less_than_the_optimum_of_its_energies():
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        weight, means = torch.randn((2, 5, 8), generator=generator)
        found = compare(weight, torch.randn(5, generator=generator), means + 3, COUNTS)
        assert found.loss >= found.optimum.loss


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["curve", "--majority", "9"], "2 minority classes"),
        (["curve", "--majority", "3", "--classes", "2"], "2 minority classes"),
        (["curve", "--weight-energy", "-1"], "must be > 0"),
        (["curve", "--largest", "0"], "at least 1"),
        (["branches", "--radius", "1"], "between 0 and 1"),
        (["branches", "--majority", "0"], "0 < majority < 10"),
        (["branches", "--starts", "0", "--bound", "energy"], "at least 1"),
        (["phase", "--runs", "nowhere"], "no finished run"),
        (["phase", "--majority", "9"], "2 minority classes"),
        (["phase", "--feature-energy", "0"], "must be > 0"),
        (["compare", "nowhere"], "no finished run"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["theory", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["result.json", "geometry.npz"])
def test_a_broken_run_is_named(tmp_path, capsys, broken):
    run = write_run(tmp_path / "run", *optimal())
    (run / broken).write_bytes(b"{")
    assert main(["theory", "compare", str(run)]) == 2
    assert broken in capsys.readouterr().err


def test_a_run_without_geometry_is_refused(tmp_path, capsys):
    run = write_run(tmp_path / "run", np.ones((5, 8)), np.ones((5, 8)))
    assert main(["theory", "compare", str(run)]) == 2
    assert "coincide" in capsys.readouterr().err


def test_a_comparison_of_some_runs_leaves_that_of_all_alone(tmp_path):
    runs = [tmp_path / name for name in ("a", "b", "c")]
    for run in runs:
        run.mkdir()
        (run / "result.json").write_text("{}")
    assert _beside(runs).name == "theory"
    assert _beside(runs[:2]).name == "theory-a+b"
    assert _beside(runs[:1]).resolve() == runs[0] / "theory-compare"
    long = [tmp_path / (name * 80) for name in "xyz"]
    for run in long:
        run.mkdir()
        (run / "result.json").write_text("{}")
    assert len({_beside(long).name, _beside(long[:2]).name, _beside(long[1:]).name}) == 3
    assert all(len(_beside(some).name) < 120 for some in (long, long[:2]))
