"""What the metric holds at its highest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parents[1] / "benchmarks" / "metric_memory.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory that the kernel reports under Linux")
def test_a_thousand_classes_take_three_accumulators():
    """Without nc4, and where the allocator hands freed memory back."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144"}
    run = subprocess.run(
        [sys.executable, str(WORKER)], env=environment, capture_output=True, text=True, check=True
    )
    assert 1.5 < float(run.stdout) < 3.0
