"""Whole runs through the command line: what they leave, how they resume, and that ranks agree."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from deq_collapse.cli import main
from deq_collapse.config.files import followed
from deq_collapse.config.run import lightning_main

REFINEMENTS = ("explicit", "equilibrium")


def command(args: list[str]) -> list[str]:
    """The same command as a process of its own."""
    return [sys.executable, "-m", "deq_collapse.cli", *args]


def environment() -> dict[str, str]:
    """As many threads as here: sums in another order have other last bits."""
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.fixture(scope="module", params=REFINEMENTS)
def run(request, small_fit, tmp_path_factory) -> Path:
    """A finished small run."""
    directory = tmp_path_factory.mktemp(request.param) / "run"
    assert main(small_fit(directory, refinement=request.param, epochs=3)) == 0
    return directory


def test_a_run_leaves_its_files(run: Path):
    tables = {"along.csv", "confusion.csv", "history.csv"}
    files = {"config.yaml", "environment.json", "geometry.npz", "last.ckpt", "manifest.json", "result.json"}
    assert {path.name for path in run.iterdir()} == tables | files | {"previous.ckpt", "checksums.json"}


def test_the_history_is_tidy_and_ends_in_the_record(run: Path):
    history = pd.read_csv(run / "history.csv")
    record = json.loads((run / "result.json").read_text())
    assert list(history) == ["epoch", "step", "split", "metric", "value"]
    assert not history.duplicated(["epoch", "split", "metric"]).any()
    last = history[history.epoch == 3].set_index(["split", "metric"]).value
    for split in ("train", "test"):
        for metric, value in record[split].items():
            assert last[split, metric] == pytest.approx(value, rel=1e-12)
    assert set(history.epoch) == {1, 2, 3}
    assert record["epochs"] == 3
    assert record["steps"] == history.step.max()


def test_the_record_counts_the_classes_it_trained_on(run: Path):
    record = json.loads((run / "result.json").read_text())
    assert record["class_counts"] == [139] * 3 + [13] * 7
    assert record["majority"] == [0, 1, 2]
    parts = record["parameters"]
    assert parts["total"] == parts["encoder"] + parts["refinement"] + parts["classifier"]


def test_both_refinements_have_equal_parameters(small_fit, tmp_path: Path):
    counts = []
    for refinement in REFINEMENTS:
        cli = lightning_main(small_fit(tmp_path, "--trainer.fast_dev_run", "true", refinement=refinement))
        counts.append(cli.model.network.parameter_counts())
    assert counts[0] == counts[1]


def test_a_checkpoint_gives_the_measures_of_its_last_epoch(run: Path, capsys):
    history = pd.read_csv(run / "history.csv")
    last = history[history.epoch == 3].set_index(["split", "metric"]).value
    args = ["--config", str(run / "config.yaml"), "--ckpt_path", "last"]
    values = lightning_main(["validate", *args]).trainer.callback_metrics
    for split in ("train", "test"):
        for metric in ("nc1", "nc2_etf_means", "nc3", "nc4", "minority_cos_weights_mean", "accuracy"):
            assert float(values[f"{split}/{metric}"]) == pytest.approx(last[split, metric], rel=1e-12)
    assert "nc2_etf_means" in capsys.readouterr().out
    tested = lightning_main(["test", *args]).trainer.callback_metrics
    assert float(tested["test/nc1"]) == pytest.approx(last["test", "nc1"], rel=1e-12)


def test_predictions_agree_with_the_accuracy(run: Path, tmp_path: Path):
    args = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "last.ckpt")]
    assert main(["predict", *args, "--trainer.default_root_dir", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "predictions.csv")
    record = json.loads((run / "result.json").read_text())
    assert (table.label == table.predicted).mean() == pytest.approx(record["test"]["accuracy"])
    assert table.probability.between(0.1, 1).all()
    quick = ["--trainer.fast_dev_run", "true"]
    assert main(["predict", *args, "--trainer.default_root_dir", str(tmp_path), *quick]) == 0
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == len(table)  # not of the one batch


def test_a_link_on_the_command_line_is_one_in_the_file(small_fit, tmp_path: Path):
    assert main(small_fit(tmp_path, "--name", "run${seed_everything}", "--data.seed=${seed_everything}")) == 0
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["name"] == "run${seed_everything}"
    assert config["data"]["seed"] == "${seed_everything}"
    assert json.loads((tmp_path / "result.json").read_text())["name"] == "run0"


def test_a_killed_run_resumes_to_the_same_bits(small_fit, tmp_path: Path):
    """As a user starts it; other kinds of runs, killed at other moments, are those of test_kills.py."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(small_fit(whole, refinement="equilibrium", epochs=6)) == 0
    args = small_fit(broken, refinement="equilibrium", epochs=6)
    process = subprocess.Popen(command(args), env=environment(), stdout=subprocess.DEVNULL)
    while not (broken / "history.csv").exists() or "\n2," not in (broken / "history.csv").read_text():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "result.json").exists()
    assert main([*args, "--ckpt_path", "last"]) == 0
    a, b = (torch.load(path / "last.ckpt", weights_only=True) for path in (whole, broken))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])
    for name in ("history.csv", "along.csv", "confusion.csv"):
        assert (whole / name).read_text() == (broken / name).read_text()


def test_a_run_killed_after_its_last_epoch_is_recorded(small_fit, tmp_path: Path):
    assert main(small_fit(tmp_path)) == 0
    before = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").unlink()
    (tmp_path / "geometry.npz").unlink()
    assert main([*small_fit(tmp_path), "--ckpt_path", "last"]) == 0
    after = json.loads((tmp_path / "result.json").read_text())
    assert after == before
    assert (tmp_path / "geometry.npz").exists()


def test_with_images_held_out_the_test_split_is_measured_once(small_fit, tmp_path: Path, capsys):
    args = ["--data.validation", "20", "--data.imbalance.init_args.n_max", "100"]
    args = small_fit(tmp_path, *args, refinement="equilibrium")
    assert main(args) == 0
    history = pd.read_csv(tmp_path / "history.csv")
    measured = history[history.metric == "nc1"].groupby("split").epoch.agg(list).to_dict()
    assert measured == {"train": [1, 2], "validation": [1, 2], "test": [2]}
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["validation"].keys() == record["train"].keys() - {"spectral_radius", "lipschitz_bound"}
    assert record["test"].keys() - record["validation"].keys() == {"accuracy_tau", "accuracy_ncm"}
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert len(content["validation"]) == 200
    assert not set(content["validation"]) & set(content["indices"])
    assert set(pd.read_csv(tmp_path / "along.csv").split) == {"train", "validation", "test"}
    capsys.readouterr()
    assert main(["validate", "--config", str(tmp_path / "config.yaml"), "--ckpt_path", "last"]) == 0
    assert "validation" in capsys.readouterr().out


def test_two_processes_that_stop_amid_an_epoch_measure_what_one_does(small_fit, tmp_path: Path):
    ddp = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    args = small_fit(tmp_path, *ddp, "--trainer.max_steps", "3", refinement="equilibrium")
    done = subprocess.run(command(args), env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    history = pd.read_csv(tmp_path / "history.csv")
    last = history[history.epoch == 2].set_index(["split", "metric"]).value
    one = ["--trainer.devices", "1", "--trainer.strategy", "auto", "--ckpt_path", "last"]
    cli = lightning_main(["validate", "--config", str(tmp_path / "config.yaml"), *one])
    values = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    compared = 0
    for split in ("train", "test"):
        for metric in last[split].index:
            if metric.startswith(("nc", "cdnv", "minority_cos", "accuracy", "seli")):
                assert values[f"{split}/{metric}"] == pytest.approx(last[split, metric], rel=1e-5, abs=1e-7)
                compared += 1
    assert compared > 40
    tables = [pd.read_csv(tmp_path / "along.csv")]
    assert main(["along", str(tmp_path)]) == 0
    tables.append(pd.read_csv(tmp_path / "along.csv"))
    # Features are float32 sums over other batches here, and NC1 divides by the smallest spread between means;
    # of equal features, tests/metrics/test_distributed.py asks 1e-9.
    pd.testing.assert_frame_equal(*tables, rtol=1e-4, atol=1e-6)
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["class_counts"] == [139] * 3 + [13] * 7
    assert (record["end"]["by"], record["end"]["whole_epochs"], record["steps"]) == ("steps", 1, 3)


def test_an_override_reaches_what_is_interpolated_from_it(small_fit, tmp_path: Path, capsys):
    assert _printed(small_fit(tmp_path, "--seed_everything", "7", epochs=5), capsys)["data"]["seed"] == 7
    config = _printed(small_fit(tmp_path, epochs=5), capsys)
    assert config["model"]["lr_scheduler"]["init_args"]["T_max"] == 5
    named = ["fit", "--config", str(Path(__file__).parents[2] / "conf/run/fashion_mnist_step_deq.yaml")]
    config = _printed([*named, "--name", "mine"], capsys)
    assert config["trainer"]["default_root_dir"] == "outputs/runs/mine"


def _printed(args: list[str], capsys) -> dict:
    with pytest.raises(SystemExit) as stopped:
        main([*args, "--print_config"])
    assert stopped.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_help_lists_our_classes_and_not_every_module(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: deq-collapse fit --config FILE")
    assert len(text.splitlines()) < 450
    for name in ("Equilibrium, Explicit", "Digits", "LongTailed", "CosineAnnealingLR", "torch.optim.Adam"):
        assert name in " ".join(text.split())
    assert "torchvision.models" not in text


def test_a_saved_configuration_follows_another_seed_and_other_epochs(tmp_path, small_fit):
    assert main(small_fit(tmp_path / "one", epochs=1)) == 0
    saved = ["fit", "--config", str(tmp_path / "one" / "config.yaml")]
    again = ["--trainer.default_root_dir", str(tmp_path / "two"), "--name", "two"]
    assert main([*saved, *again, "--seed_everything", "1", "--trainer.max_epochs", "2"]) == 0
    config = followed(yaml.safe_load((tmp_path / "two" / "config.yaml").read_text()))
    assert str(config["data"]["seed"]) == "1"
    assert str(config["model"]["lr_scheduler"]["init_args"]["T_max"]) == "2"
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["seed"] == 1
    pinned = [*saved, "--trainer.default_root_dir", str(tmp_path / "three"), "--data.seed", "0"]
    assert main([*pinned, "--name", "three"]) == 0
    assert yaml.safe_load((tmp_path / "three" / "config.yaml").read_text())["data"]["seed"] == 0


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(tmp_path, small_fit):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(small_fit(whole, epochs=3)) == 0
    assert main(small_fit(broken, epochs=3)) == 0
    (broken / "result.json").unlink()
    content = bytearray((broken / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (broken / "last.ckpt").write_bytes(content)
    with pytest.warns(UserWarning, match=r"last\.ckpt is not a whole checkpoint .*previous\.ckpt"):
        assert main([*small_fit(broken, epochs=3), "--ckpt_path", "last"]) == 0
    a, b = (torch.load(path / "last.ckpt", weights_only=True)["state_dict"] for path in (whole, broken))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (whole / "history.csv").read_bytes() == (broken / "history.csv").read_bytes()
