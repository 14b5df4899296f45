"""The checkpoint a run continues from is whole at any moment."""

from pathlib import Path

import pytest
import torch

from deq_collapse.callbacks import AtomicCheckpointIO


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
    assert list(tmp_path.iterdir()) == [path]
