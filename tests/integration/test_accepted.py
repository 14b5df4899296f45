"""What Lightning offers and is reasonable is taken, and the record is still right."""

import json
from pathlib import Path

import pytest
import yaml

from deq_collapse.cli import main
from deq_collapse.config.run import lightning_main
from deq_collapse.study.check import check_study
from deq_collapse.study.grid import read_study_file

CONF = Path(__file__).parents[2] / "conf"


def _callback(name: str, **init_args: object) -> dict[str, object]:
    return {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": init_args}


def test_a_timer_a_bar_an_average_a_plateau_and_a_name_like_a_number(small_fit, tmp_path: Path, capsys):
    chosen = [
        _callback("Timer", duration="00:01:00:00"),
        _callback("TQDMProgressBar"),
        _callback("EMAWeightAveraging", decay=0.5),
    ]
    plateau = {"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args": {"monitor": "train/nc1"}}
    content = {"trainer": {"callbacks+": chosen}, "model": {"lr_scheduler": plateau}}
    args = ["--name", "1e-2", "--axes", '{"lr": "1e-2"}', "--config", json.dumps(content)]
    assert main(small_fit(tmp_path, *args)) == 0
    printed = capsys.readouterr()
    assert "epoch 1/2" not in printed.out  # of our own line
    record = json.loads((tmp_path / "result.json").read_text())
    assert (record["name"], record["axes"], record["end"]["by"]) == ("1e-2", {"lr": "1e-2"}, "epochs")
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (config["name"], config["axes"]) == ("1e-2", {"lr": "1e-2"})
    again = ["validate", "--config", str(tmp_path / "config.yaml"), "--ckpt_path", "last"]
    cli = lightning_main(again)
    for measure in ("accuracy", "nc1"):
        value = float(cli.trainer.callback_metrics[f"train/{measure}"])
        assert value == pytest.approx(record["train"][measure], rel=1e-6)


def test_a_run_may_show_nothing(small_fit, tmp_path: Path, capsys):
    assert main(small_fit(tmp_path, "--trainer.enable_progress_bar", "false", epochs=1)) == 0
    assert capsys.readouterr().out == f"Run: {tmp_path}\n"
    assert (tmp_path / "result.json").exists()


def test_a_label_of_a_study_may_be_written_as_a_power_of_ten(tmp_path: Path):
    content = {
        "name": "rates",
        "output": str(tmp_path / "studies"),
        "config": [str(CONF / "run/digits.yaml"), str(CONF / "model/explicit.yaml")],
        "override": [{"trainer": {"max_epochs": 1}}],
    }
    axes = "axes: {sign: {-v: {}}, lr: {model.optimizer.init_args.lr: [1e-2, 1e-05]}}\n"
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content) + axes)
    planned = check_study(read_study_file(tmp_path / "study.yaml"))
    assert [cell.axes["lr"] for cell in planned] == ["1e-2", "1e-05"]
    assert planned[0].hash != planned[1].hash
    assert planned[0].name == "-v-lr1e-2-seed0"


@pytest.mark.parametrize("solver", ["Broyden", "deq_collapse.models.Broyden"])
def test_a_solver_may_be_given_by_its_path_alone(solver: str, small_fit, tmp_path: Path, capsys):
    args = small_fit(tmp_path, "--model.refinement.init_args.solver", solver, refinement="equilibrium")
    with pytest.raises(SystemExit) as ended:
        main([*args, "--print_config"])
    assert ended.value.code == 0
    chosen = yaml.safe_load(capsys.readouterr().out)["model"]["refinement"]["init_args"]["solver"]
    assert chosen["class_path"].endswith(".Broyden")
