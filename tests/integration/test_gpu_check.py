"""The check of a GPU is known to run to its end where there is none."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch

PATH = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = spec_from_file_location("gpu_check", PATH)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_rehearsal_on_a_cpu_ends_in_a_table_and_a_failure_is_told(program, monkeypatch, capsys):
    def broken(machine):
        yield program.Row("before", "well")
        program.require(False, "what failed")

    monkeypatch.setitem(program.CHECKS, "broken", broken)
    monkeypatch.setattr(sys, "argv", ["gpu_check", "metric", "precision", "broken", "--device", "cpu"])
    assert program.main() == 1
    table = capsys.readouterr().out
    for row in ("NeuralCollapse, 5 x 8", "residual, equilibrium, bf16-mixed", "before"):
        assert f"| {row} " in table
    assert "FAILED broken: AssertionError: what failed" in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_ends_well(program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert program.main() == 0
    assert capsys.readouterr().out.startswith("gpu-check is skipped: torch finds no GPU")
