"""A download continues where it broke off, and is there whole or not at all."""

import hashlib
import random

import pytest

from deq_collapse.data.fetch import ATTEMPTS, download
from deq_collapse.errors import UserError

CONTENT = random.Random(0).randbytes(5000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def published(mirror):
    (mirror.folder / "data.bin").write_bytes(CONTENT)
    return mirror


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target").mkdir()
    return tmp_path / "target" / "data.bin"


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def sizes(mirror):
    return [size for _, size in mirror.served]


def test_a_file_arrives_whole(published, target):
    download([published.address + "data.bin"], target, MD5)
    assert target.read_bytes() == CONTENT
    assert names(target) == ["data.bin"]


def test_a_connection_that_breaks_again_and_again_costs_no_byte_twice(published, target):
    published.hangs_up_after = 1500
    download([published.address + "data.bin"], target, MD5)
    assert target.read_bytes() == CONTENT
    assert sizes(published) == [1500, 1500, 1500, 500]


def test_what_came_is_kept_and_a_later_call_asks_for_the_rest_alone(published, target):
    published.hangs_up_after, published.connections = 1500, 2
    with pytest.raises(UserError, match=r"503.*3,000 bytes are kept") as error:
        download([published.address + "data.bin"], target, MD5)
    assert "\n" not in str(error.value)
    assert names(target) == ["data.bin.part"]
    published.hangs_up_after, published.connections = None, 1
    download([published.address + "data.bin"], target, MD5)
    assert target.read_bytes() == CONTENT
    assert sizes(published) == [1500, 1500, 2000]
    assert names(target) == ["data.bin"]


def test_a_server_that_knows_no_ranges_gives_the_whole(published, target):
    target.with_name("data.bin.part").write_bytes(CONTENT[:1000])
    published.knows_ranges = False
    download([published.address + "data.bin"], target, MD5)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("left", [CONTENT[::-1][:1000], CONTENT[::-1], CONTENT + b"more"])
def test_what_is_left_of_another_file_is_replaced(left, published, target):
    target.with_name("data.bin.part").write_bytes(left)
    download([published.address + "data.bin"], target, MD5)
    assert target.read_bytes() == CONTENT
    assert names(target) == ["data.bin"]


def test_a_whole_part_of_a_process_that_was_killed_is_used(published, target):
    target.with_name("data.bin.part").write_bytes(CONTENT)
    download([published.address + "data.bin"], target, MD5)
    assert target.read_bytes() == CONTENT
    assert sizes(published) == []


def test_a_file_that_is_not_the_published_one_is_refused_and_leaves_nothing(published, target):
    (published.folder / "data.bin").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(UserError, match="not the file that was published") as error:
        download([published.address + "data.bin"], target, MD5)
    assert "\n" not in str(error.value)
    assert names(target) == []
    assert sizes(published) == [5000]


def test_the_next_address_is_tried_where_one_has_no_such_file(published, target):
    download([published.address + "gone.bin", published.address + "data.bin"], target, MD5)
    assert target.read_bytes() == CONTENT


def test_an_address_that_gives_nothing_is_given_up(published, target):
    published.hangs_up_after = 0
    with pytest.raises(UserError, match="broke off after 0 of 5,000 bytes"):
        download([published.address + "data.bin"], target, MD5)
    assert len(published.served) == ATTEMPTS


def test_a_full_disk_is_told_and_gets_its_space_back(published, target, full_disk):
    with full_disk(2000), pytest.raises(UserError, match=r"data\.bin cannot be written: File too large"):
        download([published.address + "data.bin"], target, MD5)
    assert names(target) == []
