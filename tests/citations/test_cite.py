"""Every shipped part names its source, and a run's sources are those of what it used."""

import inspect
import json
import re
from pathlib import Path

import pytest
import yaml
from torch import nn

from deq_collapse import data, losses, models
from deq_collapse.citations.collect import references, uses
from deq_collapse.citations.uses import ALWAYS, CLASSES, CORE, MEASURES, OPTIONS, STUDY
from deq_collapse.cli import main
from deq_collapse.errors import UserError
from deq_collapse.metrics import TABLE
from deq_collapse.models.gradients import Gradient

NOT_CITED = {"Cell", "CollapseModule", "Criterion", "ClassWeights", "Network", "CollapseDataModule"} | {
    "Augmentation",
    "ImageSet",
    "Imbalance",
    "Sampler",
    "Source",
}
"""Bases, and what is put together of the rest."""
ENTRY = re.compile(r"@(\w+)\{\w+,\n((?:  \w+ = \{.*\},?\n)+)\}")


def parts() -> set[str]:
    named = {
        f"{room.__name__.split('.')[1]}.{name}": kind
        for room in (data, losses, models)
        for name, kind in vars(room).items()
        if name in room.__all__ and inspect.isclass(kind) and name not in NOT_CITED
    }
    assert issubclass(named["losses.LDAM"], nn.Module)
    assert issubclass(named["models.Phantom"], Gradient)
    return set(named)


def test_every_shipped_class_has_a_line() -> None:
    assert parts() == {name for name in CLASSES if not name.startswith("torch.")}


def test_every_measure_that_has_a_name_of_its_own_has_a_source() -> None:
    ours = {"nc1", "nc2_norm", "nc2_angle", "nc3", "nc3_alignment", "coincident_pairs", "between_rank"}
    ours |= {"skipped_samples", "absent_classes"}  # Papyan's, which are always cited, and counts
    begins = (*MEASURES, *ours)
    assert [name for name in TABLE if not any(re.match(rf"{begin}(_|$)", name) for begin in begins)] == []


def test_every_key_has_an_entry_and_every_entry_is_used() -> None:
    used = {key for table in (CLASSES, OPTIONS, MEASURES) for keys in table.values() for key in keys}
    assert used | {*ALWAYS, *CORE, *STUDY} == references().keys()


@pytest.mark.parametrize("key", references())
def test_an_entry_has_what_a_reference_needs(key: str) -> None:
    found = ENTRY.fullmatch(references()[key])
    assert found
    fields = dict(line.strip().split(" = ", 1) for line in found[2].splitlines())
    where = {"inproceedings": "booktitle", "article": "journal", "techreport": "institution"}
    needed = {"author", "title", "year"} | ({where[found[1]]} if found[1] in where else set())
    assert needed <= fields.keys()
    assert fields["year"].strip("{},") in key
    assert found[0].count("{") == found[0].count("}")


def _run(directory: Path, config: object, result: object = None) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    if result is not None:
        (directory / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return directory


CELL = {"class_path": "deq_collapse.models.cells.mdeq.MDEQCell", "init_args": {"weight_norm": True}}
SOLVED = {"cell": CELL, "gradient": "jfb", "solver": "broyden_relative", "jacobian_weight": 0.0}
CONFIG = {
    "data": {"mixup": 0.2, "source": {"class_path": "deq_collapse.data.Digits"}},
    "model": {
        "criterion": {
            "class_path": "deq_collapse.losses.LDAM",
            "init_args": {"weights": {"beta": 0.9999, "after": 0.8}},
        },
        "refinement": {"class_path": "deq_collapse.models.Equilibrium", "init_args": SOLVED},
    },
}


def test_a_run_cites_what_it_used_and_nothing_else(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", CONFIG, {"train": {"nc1": 0.1, "seli_means": 0.2}, "test": None})
    assert uses(run).keys() == {
        *ALWAYS,
        "zhang2018mixup",
        "alpaydin1998optical",
        "cao2019learning",
        "cui2019class",
        "bai2019deep",
        "geng2023torchdeq",
        "bai2020multiscale",
        "salimans2016weight",
        "fung2022jfb",
        "broyden1965class",
        "thrampoulidis2022imbalance",
    }
    assert uses(run)["cao2019learning"] == ["losses.LDAM", "weights.after 0.8"]


def test_a_study_cites_what_its_runs_used_and_its_report(tmp_path: Path) -> None:
    _run(tmp_path / "a", {"model": {"criterion": {"class_path": "deq_collapse.losses.Focal"}}})
    _run(tmp_path / "b", {"model": {"optimizer": {"class_path": "torch.optim.AdamW"}}})
    assert uses(tmp_path).keys() == {*ALWAYS, *STUDY, "lin2017focal", "loshchilov2019decoupled"}


def test_the_command_prints_entries_with_what_they_are_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cite"]) == 0
    assert re.findall(r"^@\w+\{(\w+),$", capsys.readouterr().out, re.MULTILINE) == ["deq_collapse", *CORE]
    assert main(["cite", str(_run(tmp_path / "run", CONFIG))]) == 0
    assert "% for refinement" not in (printed := capsys.readouterr().out)
    assert "% for gradient jfb\n@inproceedings{fung2022jfb,\n" in printed


def test_a_directory_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the directory of a run, or of a study"):
        uses(tmp_path)
