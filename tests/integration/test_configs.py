"""Every shipped run configuration parses, instantiates and makes one step; study files name real files."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from deq_collapse.cli import main
from deq_collapse.study.grid import read_study_file

CONF = Path(__file__).parents[2] / "conf"
RUNS = sorted(
    path.stem for path in (CONF / "run").glob("fashion*_*_*.yaml") if path.stem != "fashion_mnist_step"
)

MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if path.stem != "common")


@pytest.mark.parametrize("name", RUNS)
def test_a_headline_run_makes_a_step(name, tmp_path: Path, fashion_root: Path):
    where = ["--trainer.default_root_dir", str(tmp_path), "--data.source.init_args.root", str(fashion_root)]
    small = ["--data.imbalance.init_args.n_max", "20", "--trainer.fast_dev_run", "true"]
    assert main(["fit", "--config", str(CONF / "run" / f"{name}.yaml"), *where, *small]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "run").glob("*.yaml")))
def test_every_run_resolves(name, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["fit", "--config", str(CONF / "run" / f"{name}.yaml"), "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["trainer"]["max_epochs"] > 0
    refinement = config["model"]["refinement"]
    if refinement and refinement["class_path"].endswith(".Explicit"):  # whatever a file before says
        assert refinement["init_args"]["gradient"] is None
        assert refinement["init_args"]["jacobian_weight"] is None


@pytest.mark.parametrize("imbalance", ["balanced", "step", "long_tailed"])
@pytest.mark.parametrize("refinement", ["explicit", "equilibrium"])
def test_the_parts_compose(imbalance, refinement, tmp_path: Path):
    parts = ["run/digits.yaml", f"data/{imbalance}.yaml", f"model/{refinement}.yaml"]
    named = [arg for part in parts for arg in ("--config", str(CONF / part))]
    assert (
        main(["fit", *named, "--trainer.fast_dev_run", "true", "--trainer.default_root_dir", str(tmp_path)])
        == 0
    )


@pytest.mark.parametrize(
    "parts",
    [
        ["run/digits", "data/pareto", "data/class_balanced", "model/explicit"],
        ["run/digits", "data/step_random", "data/deferred", "model/explicit"],
        ["trainer/cpu", "data/gaussian", "model/equilibrium_mlp"],
    ],
    ids=lambda parts: parts[1].removeprefix("data/"),
)
def test_kinds_of_data_compose_and_make_a_step_under_mixup(parts, tmp_path: Path):
    named = [arg for part in parts for arg in ("--config", str(CONF / f"{part}.yaml"))]
    small = ["--data.mixup", "0.2", "--trainer.fast_dev_run", "true"]
    assert main(["fit", *named, *small, "--trainer.default_root_dir", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "model",
    [
        # As published it stops solving whether a fixed point is found or not, and says so.
        pytest.param(model, marks=pytest.mark.filterwarnings("ignore:in epoch 1 the .* missed"))
        if model == "mdeq_tiny"
        else model
        for model in MODELS
    ],
)
def test_a_model_makes_a_step(model, tmp_path: Path):
    small = ["--data.batch_size", "8", "--data.eval_batch_size", "8", "--trainer.fast_dev_run", "true"]
    named = ["--config", str(CONF / "run/digits.yaml"), "--config", str(CONF / "model" / f"{model}.yaml")]
    if model.startswith("resnet18"):
        small += ["--model.encoder.init_args.widths", "[8, 8, 8, 16]"]
    if model == "jfb":  # digits of 8x8 pixels
        small += ["--model.encoder.init_args.pool", "1"]
    assert main(["fit", *named, *small, "--trainer.default_root_dir", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    "part",
    [
        f"{path.parent.name}/{path.stem}"
        for room in ("solver", "trainer")
        for path in sorted((CONF / room).glob("*.yaml"))
    ],
)
def test_a_solver_or_what_steadies_training_makes_a_step(part, tmp_path: Path):
    parts = ["run/digits.yaml", "model/equilibrium.yaml", f"{part}.yaml"]
    named = [arg for each in parts for arg in ("--config", str(CONF / each))]
    assert (
        main(["fit", *named, "--trainer.fast_dev_run", "true", "--trainer.default_root_dir", str(tmp_path)])
        == 0
    )


def test_parts_that_steady_training_add_up(tmp_path: Path):
    parts = ["run/digits.yaml", "model/equilibrium.yaml", "solver/broyden.yaml"]
    parts += [f"trainer/{name}.yaml" for name in ("pretraining", "jacobian_schedule", "spectral_radius")]
    short = tmp_path / "pretraining.yaml"
    short.write_text((CONF / parts[3]).read_text().replace("1000", "3"))
    parts[3] = str(short)
    named = [arg for each in parts for arg in ("--config", str(CONF / each))]
    small = ["--trainer.max_epochs", "2", "--model.encoder.init_args.width", "8"]
    assert main(["fit", *named, *small, "--trainer.default_root_dir", str(tmp_path / "run")]) == 0
    fit = pd.read_csv(tmp_path / "run" / "history.csv").query("split == 'fit'")
    assert {"jacobian_weight", "spectral_radius", "forward_evaluations"} <= set(fit.metric)
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["solver"]["solver"] == "Broyden(window=100)"


@pytest.mark.parametrize("path", sorted((CONF / "study").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_study_file_is_a_grid_of_runs(path: Path):
    study = read_study_file(path)
    assert len({cell.name for cell in study.cells}) == len(study.cells) > 1
    more = read_study_file(path, seeds=12)  # which keeps every run that is there
    assert {cell.name: cell.configs for cell in study.cells}.items() <= {
        c.name: c.configs for c in more.cells
    }.items()


def test_the_papers_study_is_its_whole_grid_seed_by_seed():
    cells = read_study_file(CONF / "study" / "paper.yaml").cells
    places = [
        (cell.axes.get("K_A"), cell.axes.get("R")) for cell in cells if cell.axes["imbalance"] == "step"
    ]
    assert set(places) == {(str(k), str(r)) for k in (3, 5, 7) for r in (10, 50, 100)}
    assert [cell.axes["seed"] for cell in cells] == sorted(cell.axes["seed"] for cell in cells)
    assert len(cells) == 11 * 2 * 3
