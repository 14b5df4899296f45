"""Every shipped file of data is what its name says, by the command line's own parser."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from deq_collapse.data import CollapseDataModule, Digits

CONF = Path(__file__).parents[2] / "conf" / "data"
FILES = {path.stem: yaml.safe_load(path.read_text())["data"] for path in sorted(CONF.glob("*.yaml"))}
SOURCES = [name for name, content in FILES.items() if "source" in content]
VARIANTS = [name for name in FILES if name not in SOURCES]
NAMES = {"npz": "images", "gaussian": "gaussian_mixture", "cifar10_jpeg": "CIFAR-10 (JPEG)"}


def build(*names, seed=3):
    parser = ArgumentParser(parser_mode="omegaconf+")
    parser.add_argument("--config", action="config")
    parser.add_argument("--seed_everything", type=int)
    parser.add_class_arguments(CollapseDataModule, "data")
    configs = [argument for name in names for argument in ("--config", str(CONF / f"{name}.yaml"))]
    data = parser.instantiate(parser.parse_args([*configs, "--seed_everything", str(seed)])).data
    assert isinstance(data, CollapseDataModule)
    return data


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_gives_a_data_module_with_the_run_seed(name):
    data = build(name)
    assert data.source.name == NAMES.get(name, name)
    assert data.seed == 3


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_composes_with_a_source(name):
    data = build("digits", name)
    assert isinstance(data.source, Digits)
    assert data.seed == 3
    assert 0 < sum(data.class_counts) == len(data.indices)
    assert len(next(iter(data.train_dataloader()))[1]) == 128


def test_the_variants_are_what_they_are_called():
    natural = (142, 145, 141, 146, 144, 145, 144, 143, 139, 144)
    assert build("digits", "balanced").class_counts == (139,) * 10
    assert build("digits", "natural").class_counts == natural
    assert build("digits", "step").class_counts == (139,) * 3 + (13,) * 7
    assert build("digits", "long_tailed").class_counts[::9] == (139, 1)
    assert build("digits", "pareto").class_counts[:2] == (139, 11)
    majorities = {build("digits", "step_random", seed=seed).majority for seed in range(5)}
    assert len(majorities) > 1
    assert build("digits", "class_balanced").sampler.from_epoch == 0
    assert build("digits", "deferred").sampler.from_epoch == 80
