"""The checkpoint a run continues from is whole at any moment."""

from pathlib import Path

import pytest
import torch

from deq_collapse.callbacks import AtomicCheckpointIO, damage


class Unwritable:
    """Stands for whatever ends a save half way."""

    def __reduce__(self):
        raise RuntimeError("the power went off")


def test_a_save_that_breaks_off_leaves_the_checkpoint_before(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"epoch": torch.tensor(1)}, path)
    with pytest.raises(RuntimeError, match="power"):
        io.save_checkpoint({"epoch": torch.tensor(2), "broken": Unwritable()}, path)
    assert io.load_checkpoint(path) == {"epoch": torch.tensor(1)}
    io.save_checkpoint({"epoch": torch.tensor(3)}, path)
    assert io.load_checkpoint(path) == {"epoch": torch.tensor(3)}
    assert io.load_checkpoint(tmp_path / "previous.ckpt") == {"epoch": torch.tensor(1)}
    assert {file.name for file in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt", "checksums.json"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weight": torch.arange(300.0), "epoch": 3}, path)
    return path


def test_no_byte_of_a_run_s_checkpoint_changes_unseen(saved: Path):
    assert damage(saved) is None
    whole = saved.read_bytes()
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 0x10
        saved.write_bytes(changed)
        assert damage(saved) is not None, place
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        assert damage(saved) is not None


def test_a_checkpoint_alone_is_known_by_the_sums_of_its_tensors(saved: Path):
    alone = saved.with_name("alone.ckpt")
    whole = saved.read_bytes()
    alone.write_bytes(whole)
    assert damage(alone) is None
    values = whole.index(torch.arange(300.0).numpy().tobytes())
    for place in (values, values + 1199, whole.index(b"data.pkl") + 100):
        changed = bytearray(whole)
        changed[place] ^= 0x01
        alone.write_bytes(changed)
        assert damage(alone) is not None


def test_the_one_before_is_known_too_and_also_one_saved_without_sums(saved: Path):
    saved.with_name("checksums.json").unlink()  # as an older version left it
    AtomicCheckpointIO().save_checkpoint({"epoch": 4}, saved)
    assert damage(saved) is None
    assert damage(saved.with_name("previous.ckpt")) is None


def test_the_checkpoint_a_run_went_on_from_stays_until_there_is_another_after_it(saved: Path):
    previous = saved.with_name("previous.ckpt")
    AtomicCheckpointIO().save_checkpoint({"epoch": 4}, saved)
    saved.write_bytes(saved.read_bytes()[:-1])
    io = AtomicCheckpointIO()
    assert io.load_checkpoint(previous)["epoch"] == 3
    for epoch, before in ((5, 3), (6, 5)):
        io.save_checkpoint({"epoch": epoch}, saved)
        assert damage(saved) is None
        assert damage(previous) is None
        assert torch.load(previous, weights_only=True)["epoch"] == before
