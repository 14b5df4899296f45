"""Under DDP every cell has the gradients, and a batch normalisation over ranks the statistics, that one
process has of the whole batch.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    worker = Path(__file__).with_name("ddp_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # A rank that hangs in a collective fails the test instead of holding it.
    subprocess.run([sys.executable, worker, folder], env=environment, timeout=300, check=True)
    return folder


@pytest.fixture(scope="module")
def gradients(folder):
    return torch.load(folder / "gradients.pt")


@pytest.mark.parametrize("cell", ["ConvCell", "LinearCell", "MLPCell", "MonotoneCell", "MultiscaleCell"])
def test_two_ranks_have_the_gradients_of_one_process(gradients, cell):
    shared, alone = gradients[cell]
    assert all(gradient.abs().max() > 0 for gradient in alone)
    torch.testing.assert_close(shared, alone, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("low", [False, True], ids=["float64", "bfloat16"])
def test_a_batch_norm_over_ranks_is_that_of_the_whole_batch(folder, rank, low):
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if low else {"rtol": 1e-9, "atol": 1e-10}
    for name, (found, whole) in torch.load(folder / f"normed-{rank}.pt")[low].items():
        assert found.dtype == whole.dtype, name
        torch.testing.assert_close(found, whole, **tolerance, msg=name)
