"""Runs that no study made are seeds of one setting only if they differ in seeds alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deq_collapse.runs.setting import in_words, setting_in_words
from deq_collapse.study.singles import placed

BASE = {
    "seed_everything": 0,
    "name": "run",
    "data.seed": 0,
    "data.source.class_path": "deq_collapse.data.Digits",
    "data.imbalance.class_path": "deq_collapse.data.Balanced",
    "model.optimizer.init_args.lr": 0.05,
    "model.refinement.class_path": "deq_collapse.models.Explicit",
    "model.refinement.init_args.depth": 1,
    "trainer.max_epochs": 2,
}
DEQ = {
    "model.refinement.class_path": "deq_collapse.models.Equilibrium",
    "model.refinement.init_args.depth": None,
    "model.refinement.init_args.tol": 1e-4,
}
STEP = {"data.imbalance.class_path": "deq_collapse.data.Step", "data.imbalance.init_args.ratio": 10.0}


def axes(directory: Path, *runs: dict[str, Any], own: dict[str, str] | None = None) -> list[dict[str, str]]:
    """Of runs with these changes to one configuration."""
    records, places = [], []
    for number, changes in enumerate(runs):
        place = directory / str(number)
        place.mkdir(exist_ok=True)
        config: dict[str, Any] = {}
        for key, value in (BASE | changes).items():
            *outer, inner = key.split(".")
            at = config
            for name in outer:
                at = at.setdefault(name, {})
            at[inner] = value
        (place / "config.yaml").write_text(yaml.safe_dump(config))
        places.append(place)
        solver = {} if "Equilibrium" in str(changes) else None
        records.append({"name": place.name, "axes": own or {}, "solver": solver})
    return [record["axes"] for record in placed(places, records)]


def seed(number: int) -> dict[str, Any]:
    return {"seed_everything": number, "data.seed": number, "name": f"run{number}"}


def test_runs_that_differ_in_seeds_alone_are_one_setting(tmp_path: Path):
    found = axes(tmp_path, *map(seed, range(3)))
    assert found == [{"refinement": "explicit", "seed": str(number)} for number in range(3)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.optimizer.init_args.lr": 1e-4}, ["lr 0.05", "lr 0.0001"]),
        (STEP, ["balanced", "step; ratio 10.0"]),
        ({"trainer.max_epochs": 5}, ["max epochs 2", "max epochs 5"]),
    ],
)
def test_runs_that_differ_otherwise_are_settings_named_by_what_differs(tmp_path: Path, changes, words):
    found = axes(tmp_path, seed(0), changes | seed(1), changes | seed(2))
    assert [setting_in_words(in_words(place, {})) for place in found] == [words[0], words[1], words[1]]


def test_refinements_are_the_sides_of_one_setting(tmp_path: Path):
    found = axes(tmp_path, {}, DEQ)
    assert [place["refinement"] for place in found] == ["explicit", "equilibrium"]
    assert len({setting_in_words(place) for place in found}) == 1


@pytest.mark.parametrize("own", [{}, {"refinement": "mine"}])
def test_two_refinements_of_one_class_are_told_apart(tmp_path: Path, own):
    first, second, *_ = axes(tmp_path, {}, {"model.refinement.init_args.depth": 3}, DEQ, own=own)
    name = own.get("refinement", "explicit")
    assert (first["refinement"], second["refinement"]) == (f"{name}, depth=1", f"{name}, depth=3")


def test_keys_of_one_name_are_told_in_full(tmp_path: Path):
    changes = {"model.optimizer.init_args.lr": 1.0, "model.other.init_args.lr": 1.0}
    _, second = axes(tmp_path, {}, changes)
    assert second["model.optimizer.lr"] == second["model.other.lr"] == "1.0"


def test_a_run_without_a_configuration_is_its_own_setting(tmp_path: Path):
    (tmp_path / "old").mkdir()
    (record,) = placed([tmp_path / "old"], [{"name": "old", "axes": {}, "solver": None}])
    assert record["axes"] == {"run": "old"}


def test_folders_of_other_images_are_other_settings_wherever_they_are(tmp_path: Path):
    folder = {"data.source.class_path": "deq_collapse.data.ImageFolder"}
    runs = [folder | {"data.source.init_args.root": root} for root in ("a", "b", "moved")]
    for number, content in enumerate(("1234567890", "abcdefghij", "1234567890")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "manifest.json").write_text(json.dumps({"sha256": content}))
    found = axes(tmp_path, *runs)
    assert [run["content"] for run in found] == ["12345678", "abcdefgh", "12345678"]
    (tmp_path / "1" / "manifest.json").write_text(json.dumps({"sha256": "1234567890"}))
    assert "content" not in axes(tmp_path, *runs)[0]


def test_what_follows_the_seed_or_the_epochs_is_no_difference(tmp_path: Path):
    link = {"data.seed": "${seed_everything}", "model.T_max": "${trainer.max_epochs}"}
    found = axes(tmp_path, {"model.T_max": 2}, link | {"seed_everything": 7})
    assert found == [{"refinement": "explicit", "seed": number} for number in ("0", "7")]
