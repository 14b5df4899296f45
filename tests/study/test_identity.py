"""What makes two configurations the same run."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deq_collapse.errors import UserError
from deq_collapse.study.identity import WITHOUT_NUMBERS, check_same, content_hash

CONFIG = {
    "seed_everything": 0,
    "name": "a",
    "trainer": {"max_epochs": 3, "logger": False, "default_root_dir": "outputs/a", "precision": None},
    "data": {"source": {"class_path": "Digits", "init_args": {"root": "data"}}, "batch_size": 128},
}


def changed(key: str, value: object) -> dict:
    """The configuration with another value for a dotted key."""
    config = yaml.safe_load(yaml.safe_dump(CONFIG))
    *outer, inner = key.split(".")
    place = config
    for name in outer:
        place = place.setdefault(name, {})
    place[inner] = value
    return config


@given(st.sampled_from(WITHOUT_NUMBERS), st.text() | st.integers() | st.booleans())
def test_what_does_not_change_numbers_is_not_in_the_hash(key: str, value: object):
    assert content_hash(changed(key, value)) == content_hash(CONFIG)


@pytest.mark.parametrize("key", ["trainer.max_epochs", "seed_everything", "data.batch_size", "model.tau"])
def test_anything_else_is(key: str):
    assert content_hash(changed(key, 7)) != content_hash(CONFIG)


def test_a_new_key_without_a_value_leaves_a_run_what_it_was():
    assert content_hash(changed("data.validation", None)) == content_hash(CONFIG)


def test_the_order_of_keys_says_nothing():
    assert content_hash(dict(reversed(CONFIG.items()))) == content_hash(CONFIG)


def test_a_run_of_another_configuration_is_told_by_its_first_difference():
    run = Path("outputs/a")
    check_same(run, CONFIG, changed("trainer.default_root_dir", "elsewhere"))
    with pytest.raises(UserError, match=r"trainer\.max_epochs is 3 there and 9 here"):
        check_same(run, CONFIG, changed("trainer.max_epochs", 9))
