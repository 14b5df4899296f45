"""A user's mistake: one clear sentence, exit code 2, nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from deq_collapse.cli import main
from deq_collapse.study.state import lock

Refused = Callable[..., str]
STEP = "--data.imbalance.init_args"
CONF = Path(__file__).parents[2] / "conf"
EQUILIBRIUM = ["--config", str(CONF / "model" / "equilibrium.yaml")]


STRATEGIES = "lightning.pytorch.strategies"
TO_ONE_PIXEL = {"class_path": "deq_collapse.models.ResNetEncoder", "init_args": {"widths": [4, 4, 4, 4]}}


def _refinement(option: str, name: str, **init_args: float) -> str:
    spec = {"class_path": f"deq_collapse.models.{name}", "init_args": init_args}
    return json.dumps({"model": {"refinement": {"init_args": {option: spec}}}})


def _callback(name: str, **init_args: object) -> list[str]:
    spec = {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": init_args}
    return ["--config", json.dumps({"trainer": {"callbacks+": [spec]}})]


MISTAKES = {
    "data set": (["--data.source", "Digitz"], ["data.source", "Digitz", "did you mean Digits?"]),
    "class path": (["--data.source", "deq_collapse.data.Digitz"], ["Digitz", "did you mean Digits?"]),
    "far off": (["--data.source", "Zzz"], ["Zzz", "CIFAR10", "Digits", "FashionMNIST", "import path"]),
    "loss": (["--model.criterion", "CrossEntropi"], ["model.criterion", "did you mean CrossEntropy?"]),
    "encoder": (["--model.encoder", "PatchEncoda"], ["model.encoder", "did you mean PatchEncoder"]),
    "readout": (["--model.readout", "TokenAvarage"], ["model.readout", "did you mean TokenAverage?"]),
    "no accumulation": (["--trainer.accumulate_grad_batches", "0"], ["at least one batch"]),
    "no epoch": (["--trainer.max_epochs", "0"], ["at least 1 in a fit"]),
    "no batch": (["--trainer.limit_train_batches", "0"], ["at least 1 in a fit"]),
    "no interval": (["--trainer.val_check_interval", "0"], ["is 0, but an epoch has", "a share"]),
    "interval": (["--trainer.val_check_interval", "1000"], ["is 1000, but an epoch has", "a share"]),
    "half precision": (
        ["--config", str(CONF / "family/contraction/once.yaml"), "--trainer.precision", "bf16-true"],
        ["bound of a cell", "32-true"],
    ),
    "key": (["--trainer.max_epoch", "3"], ["trainer.max_epoch;", "did you mean trainer.max_epochs"]),
    "key in YAML": (
        ["--config", "{modle: {metrics: null}}"],
        ["modle.metrics", "mean model.metrics"],
    ),
    "option": (["--model.encoder.init_args.widht", "3"], ["ConvEncoder has no option widht", "width?"]),
    "type": (["--trainer.max_epochs", "many"], ["trainer.max_epochs is many", "a whole number"]),
    "choice": (
        [*EQUILIBRIUM, "--model.refinement.init_args.solver", "newton"],
        ["newton", "anderson_relative, broyden_relative, fixed_point_relative"],
    ),
    "solver's option": (
        [*EQUILIBRIUM, "--config", _refinement("solver", "Broyden", windw=3)],
        ["Broyden has no option windw", "window?"],
    ),
    "an option of another kind": (
        ["--data.source", "GaussianMixture", "--data.source.init_args.num_classes", "ten"],
        ["data.source.init_args.num_classes is ten", "a whole number"],
    ),
    "an option left out": (
        ["--data.source", "ImageFolder"],
        ["ImageFolder needs root: set data.source.init_args.root"],
    ),
    "an option of a schedule left out": (
        ["--model.lr_scheduler", "torch.optim.lr_scheduler.OneCycleLR"],
        ["OneCycleLR needs max_lr: set model.lr_scheduler.init_args.max_lr"],
    ),
    "a module for a cell": (
        [*EQUILIBRIUM, "--model.refinement.init_args.cell", "tests.parts.NoCell"],
        ["cell is tests.parts.NoCell", "a subclass of deq_collapse.models.Cell"],
    ),
    "a loss of every sample": (
        ["--model.criterion", "tests.parts.EachSample"],
        ["EachSample", "shape (", "the mean"],
    ),
    "solver's window": (
        [*EQUILIBRIUM, "--config", _refinement("solver", "Broyden", window=0)],
        ["window is 0"],
    ),
    "tau": ([*EQUILIBRIUM, "--config", _refinement("gradient", "Phantom", steps=3, tau=2.0)], ["tau is 2.0"]),
    "tolerance": ([*EQUILIBRIUM, "--config", _refinement("tol", "Tolerance", relative=0.0)], ["above 0"]),
    "metric": (["--model.metrics", "[nc9]"], ["model.metrics", "nc9"]),
    "decays": (["--model.decays", "[1e-4, -1]"], ["model.decays", ">= 0", "-1"]),
    "R below 1": ([f"{STEP}.ratio", "0.5"], ["R is 0.5", "R >= 1"]),
    "K_A": ([f"{STEP}.num_majority", "10"], ["K_A", "1..9"]),
    "a list without brackets": (
        ["--model.metrics", "nc1,nc2"],
        ["model.metrics is nc1,nc2", "a list or null, as [nc1,nc2]"],
    ),
    "a decimal comma": (
        ["--model.optimizer.init_args.lr", "0,1"],
        ["model.optimizer.init_args.lr is 0,1, but it takes a number", "a number has a point, 0.1"],
    ),
    "a part that cannot be made": (
        ["--model.encoder", "tests.parts.Unmade"],
        ["the encoder cannot be made for (1, 8, 8): IndexError", "parts.py, line 11"],
    ),
    "a part that fails": (
        ["--model.encoder", "tests.parts.Failing"],
        ["the encoder cannot take an input of shape (1, 1, 8, 8): KeyError", "parts.py, line 21"],
    ),
    "empty class": ([f"{STEP}.ratio", "1000"], ["no image of class 3", "the largest R allowed is 139"]),
    "too many images": ([f"{STEP}.n_max", "5000"], ["5000"]),
    "expansion": (
        [*EQUILIBRIUM, "--model.refinement.init_args.cell.init_args.lipschitz", "1.5"],
        ["lipschitz is 1.5", "below 1"],
    ),
    "encoder depth": (["--model.encoder.init_args.depth", "0"], ["depth 0", "at least 1"]),
    "deferred": (
        ["--data.sampler", "Resampled", "--data.sampler.init_args.from_epoch", "80"],
        ["begins after 80 epochs", "data.sampler.init_args.from_epoch"],
    ),
    "no name": (["--name", ""], ["--name is ''"]),
    "a name that leaves": (["--name", "a/../../b"], ["--name is 'a/../../b'", "directory"]),
    "a long name": (["--name", "n" * 260], ["at most 200 bytes"]),
    "part of a split": (["--trainer.limit_val_batches", "1"], ["limit_val_batches is 1", "leave it out"]),
    "overfitting": (["--trainer.overfit_batches", "1"], ["overfit_batches is 1", "leave it out"]),
    "measuring rarely": (
        ["--trainer.check_val_every_n_epoch", "5"],
        ["check_val_every_n_epoch is 5", "--schedule.dense"],
    ),
    "a part of the predictions": (["--trainer.limit_predict_batches", "1"], ["limit_predict_batches is 1"]),
    "a link to nowhere": (
        ["--data.seed", "${seed_everythin}"],
        ["data.seed follows seed_everythin", "did you mean seed_everything?"],
    ),
    "links in a circle": (
        ["--data.seed", "${seed_everything}", "--seed_everything", "${data.seed}"],
        ["the link", "${seed_everything}", "ecursive"],
    ),
    "a link to no variable": (["--name", "${oc.env:NO_SUCH}"], ["the link", "NO_SUCH' not found"]),
    "half a link": (["--name", "${seed_everything"], ["the link name cannot be followed"]),
    "batch size": (["--data.batch_size", "0"], ["0", "at least 1 image"]),
    "config file": (["--config", "nowhere.yaml"], ["nowhere.yaml cannot be read"]),
    "checkpoint": (["--ckpt_path", "nowhere.ckpt"], ["no checkpoint at nowhere.ckpt"]),
    "GPUs": (
        ["--trainer.accelerator", "gpu", "--trainer.devices", "4096"],
        ["4096 GPUs", "--trainer.accelerator cpu"],
    ),
    "processes": (["--trainer.devices", "4096"], ["4096 CPU processes", "cores"]),
    "no strategy": (["--trainer.strategy", "dpd"], ["no trainer.strategy dpd", "did you mean ddp"]),
    "split weights": (["--trainer.strategy", "fsdp"], ["trainer.strategy is fsdp", "auto, ddp or ddp_fork"]),
    "a class that splits weights": (
        ["--config", json.dumps({"trainer": {"strategy": {"class_path": f"{STRATEGIES}.FSDPStrategy"}}})],
        ["trainer.strategy is FSDPStrategy", "auto, ddp or ddp_fork"],
    ),
    "spawned": (["--trainer.strategy", "ddp_spawn"], ["trainer.strategy is ddp_spawn", "pickled"]),
    "what does not go together": (
        ["--trainer.accelerator", "cpu", "--trainer.devices", "[0]"],
        ["the trainer cannot be made"],
    ),
    "batch norm of one": (
        [
            *("--config", json.dumps({"model": {"encoder": TO_ONE_PIXEL}})),
            *(f"{STEP}.n_max", "30", "--data.batch_size", "110"),
        ],
        ["last batch of an epoch, which has 1 image", "data.batch_size than 110"],
    ),
    "half a DEQ": ([*EQUILIBRIUM, "--trainer.precision", "bf16-true"], ["64-true, bf16-mixed"]),
    "statistics over ranks in a solve": (
        [
            *("--config", str(CONF / "model" / "jfb.yaml"), "--model.encoder.init_args.pool", "1"),
            *("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.sync_batchnorm", "true"),
        ],
        ["BatchNormCell has batch norm", "set trainer.sync_batchnorm to false"],
    ),
    "seed": (["--seed_everything", "-1"], ["seed_everything is -1", "from 0 to 4294967295"]),
    "a rate that is none": (["--model.optimizer.init_args.lr", ".nan"], ["lr is nan", "finite"]),
    "an endless penalty": (
        [*EQUILIBRIUM, "--model.refinement.init_args.jacobian_weight", ".inf"],
        ["jacobian_weight is inf", "at least 0"],
    ),
    "clipping below 0": (
        ["--trainer.gradient_clip_val", "-1.0"],
        ["gradient_clip_val is -1.0", "at least 0"],
    ),
    "clipping at nothing": (
        ["--trainer.gradient_clip_algorithm", "norm"],
        ["gradient_clip_algorithm is set", "set trainer.gradient_clip_val"],
    ),
    "more epochs at least than at most": (
        ["--trainer.min_epochs", "9"],
        ["trainer.min_epochs is 9, but trainer.max_epochs is 2"],
    ),
    "without a checkpoint": (
        ["--trainer.enable_checkpointing", "false"],
        ["trainer.enable_checkpointing is false", "leave it out"],
    ),
    "bare bones": (["--trainer.barebones", "true"], ["trainer.barebones is true", "leave it out"]),
    "a small negative rate": (["--model.optimizer.init_args.lr", "-1e-3"], ["learning rate: -0.001"]),
    "a precision that is none": (
        ["--trainer.precision", "17"],
        ["trainer.precision is 17", "bf16-mixed", "or null"],
    ),
    "learning rate": (["--model.optimizer.init_args.lr", "-1"], ["model.optimizer", "-1"]),
    "a plateau of what": (
        ["--model.lr_scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau"],
        ["lightning.pytorch.cli.ReduceLROnPlateau"],
    ),
    "a plateau of nothing measured": (
        [
            *("--model.lr_scheduler", "lightning.pytorch.cli.ReduceLROnPlateau"),
            *("--model.lr_scheduler.init_args.monitor", "val_loss"),
        ],
        ["model.lr_scheduler follows val_loss", "not logged", "test/loss"],
    ),
    "stopping by nothing measured": (
        _callback("EarlyStopping", monitor="train/nc_1"),
        ["EarlyStopping follows train/nc_1", "not logged", "did you mean train/nc1"],
    ),
    "checkpoints by nothing measured": (
        _callback("ModelCheckpoint", monitor="xyz"),
        ["ModelCheckpoint follows xyz", "did you mean fit/loss or train/loss or test/loss?"],
    ),
    "the test split before the end": (
        [
            *("--data.validation", "20", f"{STEP}.n_max", "100"),
            *_callback("EarlyStopping", monitor="test/loss"),
        ],
        ["EarlyStopping follows test/loss", "validation/loss"],
    ),
    "weights exchanged late": (
        _callback("StochasticWeightAveraging", swa_lrs=0.01),
        ["StochasticWeightAveraging", "EMAWeightAveraging"],
    ),
    "the last of one step": (
        ["--config", str(CONF / "trainer" / "last_step.yaml")],
        ["LastStep takes the last two states", "Explicit with a depth of 1"],
    ),
    "a monitor without a logger": (_callback("LearningRateMonitor"), ["trainer.logger", "history.csv"]),
}


@pytest.mark.parametrize(("args", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_in_one_sentence_and_leaves_nothing(
    args, words, tmp_path, small_fit, refused: Refused
):
    told = refused(*small_fit(tmp_path / "outputs" / "runs" / "run", *args))
    for word in words:
        assert word in told
    assert not (tmp_path / "outputs").exists()


def test_tasks_that_slurm_does_not_place_are_told(small_fit, tmp_path: Path, refused: Refused, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    told = refused(*small_fit(tmp_path / "run"))
    assert "SLURM_NTASKS" in told
    assert "--ntasks-per-node" in told
    assert not (tmp_path / "run").exists()


def test_an_output_directory_that_cannot_be_written_is_named(small_fit, tmp_path: Path, refused: Refused):
    (tmp_path / "file").write_text("in the way")
    assert f"{tmp_path}/file/run cannot be written" in refused(*small_fit(tmp_path / "file" / "run"))


def test_options_before_their_class_name_the_cure(refused: Refused):
    files = [part for name in ("run/digits", "model/explicit") for part in ("--config", f"conf/{name}.yaml")]
    first = ["--config", "{model: {optimizer: {init_args: {lr: 0.1}}}}"]
    told = refused("fit", *first, *files)
    assert "model.optimizer.init_args.lr is given before anything names the class of model.optimizer" in told


def test_a_class_that_takes_over_options_says_so(
    small_fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rate = ["--model.optimizer.init_args.lr", "0.001"]
    args = small_fit(tmp_path / "run", "--model.optimizer", "torch.optim.AdamW", *rate, epochs=1)
    assert main(args) == 0
    assert (
        "model.optimizer is AdamW with weight_decay 0.005, which was given for SGD" in capsys.readouterr().err
    )


@pytest.mark.parametrize("content", [{"a": 1}, {"state_dict": {}}, [1]])
def test_a_checkpoint_of_something_else_is_no_runs(content, small_fit, tmp_path: Path, refused: Refused):
    torch.save(content, tmp_path / "foreign.ckpt")
    told = refused(
        "validate", *small_fit(tmp_path / "run")[1:], "--ckpt_path", str(tmp_path / "foreign.ckpt")
    )
    assert "foreign.ckpt is no checkpoint of a run" in told


def test_a_missing_configuration_is_listed(refused: Refused):
    assert "model.encoder, model.refinement" in refused("fit")


def test_a_data_file_cut_short_is_named(small_fit, tmp_path: Path, refused: Refused):
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    source = ["--data.source", "FashionMNIST", "--data.source.init_args.root", str(tmp_path / "data")]
    told = refused(*small_fit(tmp_path / "run", *source))
    assert "ubyte" in told
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def run(small_fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small run."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    assert main(small_fit(directory)) == 0
    return directory


class TestBesideAnotherRun:
    def test_a_finished_run_is_not_overwritten(self, small_fit, run: Path, refused: Refused):
        before = {path: path.read_bytes() for path in run.iterdir()}
        assert "finished" in refused(*small_fit(run))
        assert before == {path: path.read_bytes() for path in run.iterdir()}

    def test_a_run_from_python_is_not_overwritten(
        self, small_fit, run: Path, tmp_path: Path, refused: Refused
    ):
        shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("config.yaml"))
        before = {path.name for path in (tmp_path / "run").iterdir()}
        assert "a run that was made from Python, finished" in refused(*small_fit(tmp_path / "run"))
        (tmp_path / "run" / "result.json").unlink()
        told = refused(*small_fit(tmp_path / "run"))
        assert "a run that was made from Python, interrupted: continue it with --ckpt_path last" in told
        assert {path.name for path in (tmp_path / "run").iterdir()} == before - {"result.json"}

    def test_a_run_that_a_study_trains_is_left_to_it(
        self, small_fit, run: Path, tmp_path: Path, refused: Refused
    ):
        shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("result.json"))
        with lock(tmp_path / "run"):
            assert "a study is training" in refused(*small_fit(tmp_path / "run"), "--ckpt_path", "last")

    def test_another_configuration_is_told_by_its_first_difference(
        self, small_fit, run: Path, refused: Refused
    ):
        told = refused(*small_fit(run, "--data.batch_size", "64"))
        assert "data.batch_size is 128 there and 64 here" in told

    def test_a_key_that_a_run_did_not_know_yet_does_not_make_it_another(
        self, small_fit, run: Path, tmp_path: Path, refused: Refused
    ):
        shutil.copytree(run, tmp_path / "run")
        config = yaml.safe_load((run / "config.yaml").read_text())
        del config["model"]["tau"]
        (tmp_path / "run" / "config.yaml").write_text(
            yaml.safe_dump(config).replace(str(run), str(tmp_path / "run"))
        )
        assert "holds this run, finished" in refused(*small_fit(tmp_path / "run"))
        told = refused(*small_fit(tmp_path / "run", "--model.tau", "2"))
        assert "model.tau is 1.0 there and 2.0 here" in told

    def test_an_interrupted_run_is_not_started_over(
        self, small_fit, run: Path, tmp_path: Path, refused: Refused
    ):
        shutil.copytree(run, tmp_path / "run")
        (tmp_path / "run" / "result.json").unlink()
        text = (tmp_path / "run" / "config.yaml").read_text()
        (tmp_path / "run" / "config.yaml").write_text(text.replace(str(run), str(tmp_path / "run")))
        assert "--ckpt_path last" in refused(*small_fit(tmp_path / "run"))

    def test_a_checkpoint_of_another_architecture_is_refused(self, run: Path, refused: Refused):
        args = ["--config", str(run / "config.yaml"), "--model.encoder.init_args.width", "9"]
        told = refused("validate", *args, "--ckpt_path", str(run / "last.ckpt"))
        assert "another architecture" in told

    def test_a_checkpoint_cut_short_is_refused(self, run: Path, tmp_path: Path, refused: Refused):
        (tmp_path / "cut.ckpt").write_bytes((run / "last.ckpt").read_bytes()[:1000])
        config = ["--config", str(run / "config.yaml")]
        assert "not a whole checkpoint" in refused("test", *config, "--ckpt_path", str(tmp_path / "cut.ckpt"))

    def test_measuring_needs_weights(self, run: Path, refused: Refused):
        assert "--ckpt_path" in refused("validate", "--config", str(run / "config.yaml"))


class TestStudyFiles:
    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("name: x\nsead: [0]\n", "did you mean seeds?"),
            ("axes: {}\n", "needs a name"),
            ("name: x\nconfig: [nowhere.yaml]\n", "nowhere.yaml"),
            ("name: x\nconfig: [3]\n", "neither a file nor a configuration"),
            ("name: x\naxes: {refinement: [a, b]}\n", "labels"),
            ("name: x\naxes: {refinement: {}}\n", "no runs"),
            ("name: ../x\n", "the study's name is '../x'"),
            ("name: x\naxes: {k: {'': {}}}\n", "the axis k has a label without a character"),
            ("name: [x\n", "not valid YAML"),
            ("name: x\naxes: {seed: {a: {}}}\n", "the list seeds"),
            ("name: x\naxes: {'': {a: {}}}\n", "an axis has no name"),
            ("name: x\naxes: {k: {a/b: {}}}\n", "which has no slash"),
            ("name: x\naxes: {R: {data.seed: [1, 1.0]}}\n", "the value 1.0 twice"),
            ("name: x\naxes: {R: {data.seed: [1, '1']}}\n", "the value 1 twice"),
            ("name: x\naxes: {R: {data.seed: 5}}\n", "the values of a key are a list, as [5]"),
            ("name: x\nconfig: [{data..seed: 5}]\n", "a part without a name"),
            ("name: x\nseeds: [0, 1, 0]\n", "the seed 0 is given twice"),
            ("name: x\nseeds: [one]\n", "the seed 'one' is no whole number"),
            ("name: x\nseeds: [-1]\n", "the seed -1 is no whole number"),
        ],
    )
    def test_a_mistake_in_a_study_file_is_told(self, text, word, tmp_path: Path, refused: Refused):
        (tmp_path / "study.yaml").write_text(text)
        assert word in refused("study", "run", str(tmp_path / "study.yaml"))

    def test_a_directory_without_a_study_has_no_report(self, tmp_path: Path, refused: Refused):
        assert str(tmp_path) in refused("study", "report", str(tmp_path))


@pytest.mark.parametrize("option", [{"fast_dev_run": True}, {"limit_val_batches": 0}])
def test_a_study_whose_runs_would_leave_no_record_is_refused(option, tmp_path: Path, refused: Refused):
    conf = Path(__file__).parents[2] / "conf"
    content = {
        "name": "none",
        "output": str(tmp_path),
        "config": [str(conf / "run/digits.yaml"), str(conf / "model/explicit.yaml")],
        "override": [{"trainer": {"max_epochs": 2} | option}],
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    (name,) = option
    assert f"cannot start: trainer.{name}" in refused("study", "run", str(file))
    assert not (tmp_path / "none").exists()


def test_a_key_given_twice_is_a_mistake(small_fit, tmp_path: Path, refused: Refused):
    file = tmp_path / "twice.yaml"
    file.write_text("model:\n  tau: 0.5\nseed_everything: 1\nmodel:\n  many: 50\n")
    told = refused(*small_fit(tmp_path / "new", "--config", str(file)))
    assert "twice.yaml" in told
    assert "the key model is given twice" in told
    told = refused(*small_fit(tmp_path / "new", "--config", "{model: {tau: 1, tau: 2}}"))
    assert "the key tau is given twice" in told
    file.write_bytes("name: f\xfcr".encode("latin-1"))
    assert "twice.yaml is not text in UTF-8" in refused(*small_fit(tmp_path / "new", "--config", str(file)))


def test_a_file_named_in_a_configuration_is_read_as_strictly(small_fit, tmp_path: Path, refused: Refused):
    part, whole = tmp_path / "part.yaml", tmp_path / "whole.yaml"
    part.write_text("tau: 0.5\nmany: 50\ntau: 1.0\n")
    told = refused(*small_fit(tmp_path / "new", "--model", str(part)))
    assert "part.yaml" in told
    assert "the key tau is given twice, again in line 3" in told
    part.write_bytes("tau: 0.5  # f\xfcr\n".encode("latin-1"))
    whole.write_text(f"model: {part}\n")
    assert "part.yaml is not text in UTF-8" in refused(*small_fit(tmp_path / "new", "--config", str(whole)))
    whole.write_text("parts: part.yaml\n")
    assert "parts is a list of files" in refused(*small_fit(tmp_path / "new", "--config", str(whole)))
