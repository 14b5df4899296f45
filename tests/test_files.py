"""A file is written whole or not at all."""

import json
import resource
from contextlib import contextmanager

import pytest

from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically, write_json


@contextmanager
def full_disk():
    """No file may grow beyond 1,000 bytes: never around a whole test, whose output may be a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_text_and_bytes_are_written_with_the_folders_they_need(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    for content in ("grün", b"\x00\xff"):
        write_atomically(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


def test_where_writing_fails_the_old_file_stays_and_no_draft_is_left(tmp_path):
    path = tmp_path / "result.json"
    write_atomically(path, "old")
    with full_disk(), pytest.raises(UserError, match=r"result\.json cannot be written: File too large"):
        write_atomically(path, "new" * 1000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_is_not_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"nc1": 0.5, "a": "b"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"nc1": float("nan")})
    assert json.loads(path.read_text()) == {"nc1": 0.5, "a": "b"}
    assert list(json.loads(path.read_text())) == ["nc1", "a"]


def test_a_folder_that_is_a_file_is_told_in_one_sentence(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_atomically(tmp_path / "taken" / "result.json", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]
