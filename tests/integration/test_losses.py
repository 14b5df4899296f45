"""Every remedy under conf/loss composes with any run, sets criterion and classifier, and replaces another."""

from pathlib import Path

import pandas as pd
import pytest

from deq_collapse.cli import main
from deq_collapse.config.command_line import CollapseCLI
from deq_collapse.config.run import lightning_main
from deq_collapse.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
LOSSES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))


def configs(*names: str) -> list[str]:
    return [arg for name in names for arg in ("--config", str(CONF / f"{name}.yaml"))]


class Built(CollapseCLI):
    """Builds what a fit is made of, and trains nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Not even the fit."""


def built(*args: str, run: tuple[str, ...] = ("run/digits", "data/long_tailed", "model/explicit")) -> Built:
    """Data and model of a configuration."""
    cli = lightning_main(["fit", *configs(*run), *args, "--trainer.fast_dev_run", "true"], Built)
    assert isinstance(cli, Built)
    return cli


@pytest.mark.parametrize("loss", LOSSES)
def test_a_remedy_makes_a_step_on_any_run(loss):
    cli = built(*configs(f"loss/{loss}"))
    x, y = next(iter(cli.datamodule.train_dataloader()))
    cli.model.criterion(cli.model(x), y).backward()
    assert all(p.grad is not None for p in cli.model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("first", "second"), [("ldam_drw", "cross_entropy"), ("ldam_drw", "ldam"), ("cosine", "ldam")]
)
def test_a_later_remedy_replaces_an_earlier_one(first, second):
    over, alone = built(*configs(f"loss/{first}", f"loss/{second}")), built(*configs(f"loss/{second}"))
    for part in ("classifier", "criterion"):
        assert str(over.settings.model[part]) == str(alone.settings.model[part])


def test_the_recipe_of_ldam_is_that_of_its_paper():
    """On digits in place of CIFAR-10, whose files a test does not have."""
    cli = built(*configs("loss/ldam_drw"), "--data.source", "Digits", run=("run/cifar10_lt",))
    (optimizer,), (schedule,) = cli.model.configure_optimizers()
    assert schedule.base_lrs == [0.1]
    assert (optimizer.defaults["momentum"], optimizer.defaults["weight_decay"]) == (0.9, 2e-4)
    assert (cli.datamodule.batch_size, cli.datamodule.imbalance.ratio) == (128, 100)
    assert cli.settings.trainer.max_epochs == 200
    assert cli.model.criterion.weights.after * 200 == 160
    assert sum(p.numel() for p in cli.model.network.encoder.parameters()) == pytest.approx(0.46e6, rel=0.01)


MISTAKES = {
    "LDAM without cosines": (
        [*configs("loss/ldam"), "--model.classifier", "torch.nn.Linear"],
        ["LDAM needs logits that are 30 times a cosine", "CosineClassifier", "instead of Linear"],
    ),
    "dot regression without ETF": (
        [*configs("loss/dot_regression"), "--model.classifier", "torch.nn.Linear"],
        ["needs a fixed simplex ETF on features of length 1", "FixedETF", "instead of Linear"],
    ),
    "tau of the test": (["--model.tau", "-1"], ["model.tau is -1", "at least 0"]),
    "thresholds": (["--model.many", "10"], ["many=10 and few=20"]),
    "beta": (
        [*configs("loss/class_balanced"), "--model.criterion.init_args.weights.beta", "2"],
        ["beta of the class weights is 2", "[0, 1]"],
    ),
    "classifier": (
        ["--model.classifier", "deq_collapse.models.FixedETFF"],
        ["model.classifier", "did you mean FixedETF?"],
    ),
    "option of the weights": (
        [*configs("loss/drw"), "--model.criterion.init_args.weights.betta", "0.9"],
        ["model.criterion: ClassWeights has no option betta; did you mean beta?"],
    ),
    "type": (
        [*configs("loss/drw"), "--model.criterion.init_args.weights.beta", "big"],
        ["model.criterion: beta is big, but it takes a number."],
    ),
}


@pytest.mark.parametrize(("args", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_before_anything_is_trained(args, words):
    with pytest.raises(UserError) as refusal:
        built(*args)
    for word in words:
        assert word in str(refusal.value)


def test_deferred_weights_of_a_run_without_an_end_are_refused_at_once(small_fit, refused, tmp_path: Path):
    endless = ["--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:01:00"]
    said = refused(*small_fit(tmp_path / "run", *configs("loss/drw"), *endless))
    assert "trainer.max_epochs or max_steps, and neither max_time nor early stopping" in said


def test_a_long_tailed_run_tells_the_accuracies_of_its_groups(tmp_path: Path):
    args = [*configs("run/digits", "data/long_tailed", "model/explicit", "loss/balanced_softmax")]
    small = ["--model.encoder.init_args.width", "8", "--trainer.max_epochs", "2", "--model.many", "50"]
    assert main(["fit", *args, *small, "--trainer.default_root_dir", str(tmp_path)]) == 0
    history = pd.read_csv(tmp_path / "history.csv")
    told = history[history.epoch == 2].set_index(["split", "metric"]).value
    classes = pd.read_csv(tmp_path / "confusion.csv")
    for split in ("train", "test"):
        of_split = classes[classes.split == split]
        seen = of_split.filter(like="as ").sum(axis=1)
        for group, fewest in (("many", 51), ("medium", 20), ("few", 1)):
            members = of_split.group == group
            assert (of_split[members].training_images >= fewest).all()
            expected = (of_split.accuracy * seen)[members].sum() / seen[members].sum()
            assert told[split, f"accuracy_{group}"] == pytest.approx(expected)
    assert {"accuracy_tau", "accuracy_ncm"} <= set(told["test"].index)
    assert not {"accuracy_tau", "accuracy_ncm"} & set(told["train"].index)
