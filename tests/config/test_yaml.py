"""A configuration that is written is read as it was, by whatever reads it later."""

from enum import StrEnum

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import get_loader
from omegaconf import OmegaConf

from deq_collapse.config.files import dump_yaml, expand_parts

NUMBERS = st.from_regex(r"[-+]?[0-9_]{0,3}\.?[0-9_]{0,3}([eE][-+]?[0-9]{1,2})?", fullmatch=True)
WORDS = st.sampled_from(
    ["", "null", "true", "no", "~", "2020-01-01", "0x1f", "1:30", ".inf", "-", "a: b", "ü"]
)


@given(st.dictionaries(st.sampled_from("abc"), NUMBERS | WORDS, min_size=1))
def test_text_stays_text(content):
    text = dump_yaml(content)
    assert yaml.safe_load(text) == content
    assert get_loader("yaml")(text) == content
    assert OmegaConf.to_container(OmegaConf.create(text)) == content


@given(st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none())
def test_a_number_stays_a_number(value):
    read = get_loader("yaml")(dump_yaml({"a": value}))["a"]
    assert (type(read), read) == (type(value), value)


def test_a_member_of_an_enum_is_its_value():
    class Interval(StrEnum):
        STEP = "step"

    assert yaml.safe_load(dump_yaml({"interval": Interval.STEP})) == {"interval": "step"}


@pytest.mark.parametrize(("written", "read"), [("1e-2", 0.01), ("'1e-2'", "1e-2"), ("1.5e3", 1500.0)])
def test_a_part_tells_numbers_from_text(written, read, tmp_path):
    (tmp_path / "part.yaml").write_text(f"lr: {written}\n")
    (tmp_path / "whole.yaml").write_text("parts: [part.yaml]\n")
    _, text = expand_parts(["--config", str(tmp_path / "whole.yaml")])
    assert get_loader("yaml")(text) == {"lr": read}
