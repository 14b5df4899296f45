"""Every family of conf/family is one cell in four refinements of equal parameters; each makes a step."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from deq_collapse.config_files import expand_parts

from deq_collapse.cli import main

CONF = Path(__file__).parents[2] / "conf"
FAMILIES = sorted(path.name for path in (CONF / "family").iterdir() if path.is_dir())
REFINEMENTS = ["equilibrium", "once", "tied", "untied"]
RUN = [part for name in ("run/digits", "model/common") for part in ("--config", str(CONF / f"{name}.yaml"))]
each = pytest.mark.parametrize("family", FAMILIES)


def file(family: str, refinement: str) -> str:
    return str(CONF / "family" / family / f"{refinement}.yaml")


def first(family: str, refinement: str) -> dict[str, Any]:
    """The refinement's arguments in the part that names its class."""
    part = yaml.safe_load(expand_parts(["--config", file(family, refinement)])[1])
    return part["model"]["refinement"]["init_args"]


@each
@pytest.mark.parametrize("refinement", REFINEMENTS)
def test_it_makes_a_step(family, refinement, tmp_path: Path):
    small = ["--data.batch_size", "8", "--data.eval_batch_size", "8", "--trainer.fast_dev_run", "true"]
    where = ["--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *RUN, "--config", file(family, refinement), *small, *where]) == 0


@each
def test_its_refinements_have_equal_parameters(family, capsys):
    branches = [arg for name in REFINEMENTS for arg in ("--branch", file(family, name))]
    assert main(["summary", *RUN, *branches]) == 0
    assert "Warning" not in capsys.readouterr().out


@each
def test_its_refinements_are_of_one_cell(family):
    assert {path.stem for path in (CONF / "family" / family).iterdir()} == set(REFINEMENTS)
    cells = [
        first(family, "equilibrium")["cell"],
        *(first(family, name)["block"] for name in REFINEMENTS[1:]),
    ]
    assert all(cell == cells[0] for cell in cells)
