"""The words of a setting are those of its configuration; what that does not know, its labels as they are."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deq_collapse.runs.config import Saved, criterion_words, imbalance_words, read_saved
from deq_collapse.runs.setting import in_words, setting_in_words

BALANCED = {"class_path": "deq_collapse.data.Balanced", "init_args": {"n_max": None}}
LONG_TAILED = {"class_path": "deq_collapse.data.LongTailed", "init_args": {"ratio": 100.0, "n_max": 500}}
STEP = {
    "class_path": "deq_collapse.data.Step",
    "init_args": {"num_majority": 5, "ratio": 50.0, "n_max": None},
}


@pytest.mark.parametrize(
    ("axes", "imbalance", "words"),
    [
        ({"imbalance": "balanced", "refinement": "explicit", "seed": "3"}, BALANCED, "balanced"),
        ({"imbalance": "long_tailed_r100"}, LONG_TAILED, "long-tailed, R=100"),
        ({"imbalance": "long_tailed", "R": "100"}, LONG_TAILED, "long-tailed, R=100"),
        ({"imbalance": "step_ka5_r50", "loss": "mse"}, STEP, "step, K_A=5, R=50; loss mse"),
        ({"imbalance": "step_r50_drawn_anew"}, STEP, "step, R=50 drawn anew"),
        ({"imbalance": "step", "K_A": "5", "R": "50"}, STEP, "step, K_A=5, R=50"),
        ({"seed": "0"}, STEP, ""),
    ],
)
def test_a_label_reads_as_the_parts_of_the_imbalance_that_it_names(
    axes: dict[str, str], imbalance: dict[str, Any], words: str
) -> None:
    assert setting_in_words(in_words(axes, imbalance_words(imbalance))) == words


@pytest.mark.parametrize("label", ["step_ka3_r10", "mine_r100", "kayak"])
def test_a_label_that_the_configuration_does_not_bear_out_stands_as_it_is(label: str) -> None:
    words = label.replace("_", " ")
    assert in_words({"imbalance": label}, imbalance_words(STEP)) == {"imbalance": words}
    assert in_words({"imbalance": label}, {}) == {"imbalance": words}


def test_a_class_of_ones_own_has_its_name_and_the_signs_that_it_shares() -> None:
    mine = {"class_path": "mine.TwoSteps", "init_args": {"ratio": 2.5, "num_majority": None, "depth": 3}}
    assert imbalance_words(mine) == {"two_steps": "two-steps", "r2.5": "R=2.5"}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("CrossEntropy", {"weights": None}, "cross entropy"),
        ("CrossEntropy", {"weights": {"beta": 0.9999}}, "cross entropy with class weights"),
        ("LDAM", None, "LDAM"),
        ("DotRegression", {}, "dot regression"),
    ],
)
def test_a_criterion_has_the_words_of_its_class(name: str, options: dict[str, Any], words: str) -> None:
    assert criterion_words({"class_path": f"deq_collapse.losses.{name}", "init_args": options}) == words


@pytest.mark.parametrize("text", ["", "data: [1]", "data: {imbalance: null}", "a: b: c", "model: 3", "\xff"])
def test_what_a_damaged_configuration_would_say_is_not_known(tmp_path: Path, text: str) -> None:
    assert read_saved(tmp_path) == Saved()
    (tmp_path / "config.yaml").write_text(text, encoding="latin-1")
    assert read_saved(tmp_path) == Saved()


def test_the_configuration_of_a_run_says_its_imbalance_and_its_criterion(tmp_path: Path) -> None:
    criterion = {"class_path": "deq_collapse.losses.SquaredError"}
    config = {"data": {"imbalance": STEP}, "model": {"criterion": criterion}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_saved(tmp_path) == Saved({"step": "step", "ka5": "K_A=5", "r50": "R=50"}, "squared error")
