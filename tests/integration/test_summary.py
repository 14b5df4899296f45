"""``deq-collapse summary``: what it prints, that it agrees with the record of a run, and what it refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from deq_collapse.cli import main
from deq_collapse.cli.summary.command import split_branches
from deq_collapse.data import Digits
from deq_collapse.report.wording import magnitude, whole

CONF = Path(__file__).parents[2] / "conf"
DIGITS = ["--config", str(CONF / "run" / "digits.yaml")]
NARROW = ["--model.encoder.init_args.width", "8"]


def branches(*names: str) -> list[str]:
    return [arg for name in names for arg in ("--branch", str(CONF / "model" / f"{name}.yaml"))]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch) -> Callable[..., str]:
    """Runs the command in an empty directory, which must stay empty; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> str:
        capsys.readouterr()
        assert main(["summary", *args]) == 0
        assert not list(tmp_path.iterdir())
        return capsys.readouterr().out

    return run


def row(text: str, label: str, after: str = "") -> list[str]:
    """The cells of the first row of a label below another."""
    line = next(line for line in text[text.index(after) :].splitlines() if line.strip().startswith(label))
    return re.split(r"  +", line.strip().removeprefix(label).strip())


def test_branches_stand_side_by_side_with_counts_by_hand(printed):
    text = printed(*DIGITS, *branches("explicit", "tied", "equilibrium"), *NARROW)
    heads = row(text, "explicit")
    assert heads == ["tied", "%", "equilibrium", "%"]
    encoder = 9 * 8 + 2 * 9 * 64 + 3 * 16
    for label, count in (("encoder", encoder), ("refinement", 2 * 9 * 64), ("classifier", 90)):
        assert row(text, label) == [whole(count), whole(count), "+0.0", whole(count), "+0.0"]
    block, layers = 2 * 2 * (8 * 2 * 2) * 72, 2 * 8 * (64 * 9 + 16 * 72 + 4 * 72)
    flops = row(text, "refinement", after="FLOPs")
    assert flops[:3] == [magnitude(block), magnitude(4 * block), "+300.0"]
    assert row(text, "encoder", after="FLOPs")[0] == magnitude(layers)
    evaluations = row(text, "evaluations")
    assert evaluations[:2] == ["–", "–"]
    assert 1 < int(evaluations[2]) <= 100
    assert "tied: Explicit(depth=4, tied)" in text
    assert "Warning" not in text


def test_matched_twins_are_equal_and_their_widths_are_printed(printed):
    text = printed(*DIGITS, *branches("explicit", "untied"), *NARROW)
    assert row(text, "parameters")[-1] == "+0.0"
    assert "untied: Explicit(depth=4, inner widths 4 x 2)" in text


def test_branches_that_differ_in_parameters_are_warned_of(printed):
    shared = ["--config", str(CONF / "model" / "explicit.yaml"), *NARROW]
    text = printed(
        *DIGITS, *shared, "--branch", "{name: a}", "--branch", "{model: {readout: torch.nn.Flatten}}"
    )
    warning = "Warning: the parameters differ by more than 1%: 2,514 (branch 1), 2,754 (branch 2)."
    assert warning in " ".join(text.split())


def test_one_configuration_has_one_column_under_its_name(printed):
    text = printed(*DIGITS, "--config", str(CONF / "model" / "explicit.yaml"), *NARROW, "--name", "mine")
    assert row(text, "mine") == [""]
    assert row(text, "classifier") == ["90"]


def test_an_encoder_alone_has_a_refinement_of_nothing(printed):
    text = printed(*DIGITS, *branches("resnet32"))
    assert row(text, "refinement") == ["0"]
    assert row(text, "parameters") == ["463,866"]  # a first convolution of one channel instead of three
    assert "resnet32: Identity" in text


def test_the_resnet_trio_is_equal_within_a_percent(printed):
    small = ["--model.encoder.init_args.widths", "[8,8,8,16]"]
    text = printed(*DIGITS, *branches("resnet18", "resnet18_explicit", "resnet18_deq"), *small)
    assert "Warning" not in text
    assert [abs(float(cell.replace("−", "-"))) < 1 for cell in row(text, "parameters")[2::2]] == [True, True]


@pytest.mark.parametrize("refinement", ["explicit", "equilibrium"])
def test_it_agrees_with_the_record_of_a_run(refinement, small_fit, tmp_path_factory, printed):
    run = tmp_path_factory.mktemp("run") / "run"
    assert main(small_fit(run, refinement=refinement, epochs=1)) == 0
    record = json.loads((run / "result.json").read_text())
    text = printed("--config", str(run / "config.yaml"), "--ckpt_path", "last")
    assert row(text, "parameters") == [whole(record["parameters"]["total"])]
    assert row(text, "FLOPs / image") == [magnitude(record["flops_per_image"])]
    assert row(text, "activations / step") == [f"{magnitude(record['activation_bytes'])}B"]


def test_a_data_set_is_read_once_for_all_branches(printed, monkeypatch):
    read, load = [], Digits.load
    monkeypatch.setattr(Digits, "load", lambda self, split: read.append(split) or load(self, split))
    printed(*DIGITS, *branches("explicit", "untied"), *NARROW)
    assert sorted(read) == ["test", "train"]


def test_a_branch_is_one_more_configuration_in_its_place():
    args = ["--config", "a", "--branch", "m/x.yaml", "--k", "1", "--branch=m/y.yaml"]
    assert dict(split_branches(args)) == {
        "x": ["--config", "a", "--config", "m/x.yaml", "--k", "1"],
        "y": ["--config", "a", "--k", "1", "--config", "m/y.yaml"],
    }
    alike = ["--branch", "runs/a/config.yaml", "--branch", "runs/b/config.yaml", "--branch", "{x: 1}"]
    assert [name for name, _ in split_branches(alike)] == ["a/config", "b/config", "branch 3"]
    assert list(split_branches(["--config", "a"])) == [("", ["--config", "a"])]


MISTAKES = {
    "no configuration": ([], ["model.encoder, model.refinement"]),
    "no file": ([*DIGITS, "--branch"], ["--branch needs a configuration file"]),
    "missing file": ([*DIGITS, "--branch", "nowhere.yaml"], ["nowhere.yaml cannot be read"]),
    "key": ([*DIGITS, *branches("explicit"), "--model.reedout", "x"], ["there is no key", "model.readout"]),
    "null": ([*DIGITS, *branches("explicit"), "--model.refinement", "null"], ["null", "torch.nn.Identity"]),
    "depth": (
        [*DIGITS, *branches("untied"), *NARROW, "--model.refinement.init_args.depth", "9"],
        ["9 matched blocks have 1296 parameters", "one block has 1152"],
    ),
    "image size": (
        [*DIGITS, *branches("torchvision"), "--model.encoder.init_args.name", "densenet121"],
        ["densenet121 cannot take images of 8 x 8"],
    ),
    "checkpoint": ([*DIGITS, *branches("explicit"), "--ckpt_path", "nowhere.ckpt"], ["no checkpoint at"]),
}


@pytest.mark.parametrize(("args", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_in_one_sentence(args, words, refused):
    told = refused("summary", *args)
    for word in words:
        assert word in told


def test_its_help_tells_what_a_branch_is(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["summary", "--help"])
    assert stopped.value.code == 0
    assert "Each --branch FILE in turn" in " ".join(capsys.readouterr().out.split())
