"""Under DDP every cell has the gradients that one process has of the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    worker = Path(__file__).with_name("ddp_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # A rank that hangs in a collective fails the test instead of holding it.
    subprocess.run([sys.executable, worker, folder], env=environment, timeout=300, check=True)
    return torch.load(folder / "gradients.pt")


@pytest.mark.parametrize("cell", ["ConvCell", "LinearCell", "MLPCell", "MonotoneCell", "MultiscaleCell"])
def test_two_ranks_have_the_gradients_of_one_process(gradients, cell):
    shared, alone = gradients[cell]
    assert all(gradient.abs().max() > 0 for gradient in alone)
    torch.testing.assert_close(shared, alone, rtol=1e-7, atol=1e-10)
