"""Mistakes that need no torch are found without it, and nothing that is right is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deq_collapse.cli.study import _read
from deq_collapse.config.early import KEYS, check_early, known_keys
from deq_collapse.config.files import SHIPPED
from deq_collapse.config.inherited import inherited
from deq_collapse.config.keys import parser_keys
from deq_collapse.errors import UserError

DIGITS = ["--config", "conf/run/digits.yaml"]
OWN = """
from torch import nn

class MyEncoder(nn.Module):
    pass

def make(shape):
    return MyEncoder()
"""

MISTAKES = {
    "no --config": (
        ["conf/run/digits.yaml"],
        "conf/run/digits.yaml follows no --config: give every file its own",
    ),
    "one --config for two": (
        [*DIGITS, "conf/model/explicit.yaml"],
        "conf/model/explicit.yaml follows no --config",
    ),
    "a list without quotes": (["--model.metrics", "[nc1,", "nc2]"], "nc2] is the value of no option"),
    "a study": (
        ["--config", "conf/study/demo.yaml"],
        "is a study file, of several runs: deq-collapse study run",
    ),
    "a file": (["--config", "conf/run/digitz.yaml"], "cannot be read"),
    "lr": (["--model.lr", "0.1"], "there is no key model.lr; did you mean model.optimizer.init_args.lr?"),
    "rate": (["--lr=0.1"], "did you mean model.optimizer.init_args.lr?"),
    "epochs": (["--epochs", "3"], "did you mean trainer.max_epochs?"),
    "batch size": (["--batch_size", "3"], "did you mean data.batch_size?"),
    "key": (["--trainer.max_epoch", "3"], "did you mean trainer.max_epochs"),
    "key in a file": (["--config", "{modle: {metrics: null}}"], "did you mean model.metrics?"),
    "own class": (["--model.encoder", "mine.MyEncodr"], "mine.py has no MyEncodr; did you mean MyEncoder?"),
    "own class in a file": (
        ["--config", "{model: {refinement: {class_path: mine.Cell}}}"],
        "mine.py has no Cell; allowed are MyEncoder, make, nn.",
    ),
    "own module": (["--model.encoder", "mnie.MyEncoder"], "there is no module mnie, installed or in this"),
    "broken module": (["--model.encoder", "broken.MyEncoder"], "broken.py is not valid Python in line 1"),
}

of_this_lightning = pytest.mark.skipif(not known_keys(), reason="the keys are of another Lightning")


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "broken.py").write_text("class MyEncoder(:\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@of_this_lightning
@pytest.mark.parametrize(("args", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_sentence(args: list[str], words: str) -> None:
    with pytest.raises(UserError) as told:
        check_early(args)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


@of_this_lightning
def test_torch_is_not_imported_for_them() -> None:
    script = (
        "import sys; from deq_collapse.cli import main; code = main(['fit', '--model.lr', '1']);"
        " assert 'torch' not in sys.modules and 'lightning' not in sys.modules; sys.exit(code)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    program = [sys.executable, "-c", script]
    done = subprocess.run(program, env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr


@pytest.mark.parametrize(
    "args",
    [
        [*DIGITS, "--config=conf/model/explicit.yaml", "--name", "a", "--model.encoder.init_args.width", "8"],
        ["--model.encoder", "mine.make", "--trainer.callbacks+=lightning.pytorch.callbacks.Timer"],
        ["--model.encoder", "mine.MyEncoder", "--model.encoder.width=8", "--data.validation", "-1"],
        ["--print_config", "--trainer.logger.init_args.mode", "online", "--data.source.help", "Digits"],
        ["--model.optimizer", "torch.optim.AdamW", "--config", "{trainer: {devices: '0,1'}, axes: {a: b}}"],
        ["--model.encoder", "encoder.yaml", "--model.encoder", '{"class_path": "torch.nn.Identity"}'],
        ["--config", "{model: {refinement: refinement.yml}}"],
        ["--config", "{}"],
        ["--help"],
        [],
    ],
)
def test_what_may_be_right_is_left_to_the_parser(args: list[str]) -> None:
    check_early(args)


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_passes(path: Path) -> None:
    if path.parent.name == "study":
        _read(path, None)
    else:
        check_early(["--config", str(path)])


@of_this_lightning
def test_the_list_of_keys_is_the_parsers() -> None:
    ours = KEYS.read_text(encoding="utf-8").split()[1:]
    assert ours == parser_keys(), "run: python -m deq_collapse.config.keys"


def test_options_that_another_class_takes_over_are_found() -> None:
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "weight_decay": 5e-3}}
    first = ["--config", yaml.safe_dump({"model": {"optimizer": sgd}})]
    assert inherited([*first, "--model.optimizer", "torch.optim.SGD"]) == []
    assert inherited([*first, "--model.optimizer.init_args.lr", "1"]) == []
    found = inherited([*first, "--model.optimizer=AdamW", "--model.optimizer.init_args.lr", "0.001"])
    assert [(each.option, each.given_for, each.now) for each in found] == [("weight_decay", "SGD", "AdamW")]
