"""docs/composition.md: its study file is one, and means what the page says."""

import re
from pathlib import Path

import pytest
import yaml

from deq_collapse.config.early import check_early
from deq_collapse.study.grid import read_study_file

PAGE = (Path(__file__).parents[2] / "docs" / "composition.md").read_text(encoding="utf-8")


def test_the_study_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (text,) = re.findall(r"^```yaml\n(# study.yaml.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    Path("study.yaml").write_text(text, encoding="utf-8")
    study = read_study_file(Path("study.yaml"))
    assert len(study.cells) == 2 * 3 * 2 * 2
    patient = next(cell for cell in study.cells if cell.axes["refinement"] == "patient")
    own = [yaml.safe_load(config) for config in patient.configs if not config.endswith(".yaml")]
    assert own[1:] == [
        {"model": {"refinement": {"init_args": {"max_iter": 200}}}},
        {"model": {"optimizer": {"init_args": {"lr": 0.05}}}},
        {"trainer": {"enable_progress_bar": False}},
        {"seed_everything": 0},
    ]
    for config in {config for cell in study.cells for config in cell.configs}:
        check_early(["--config", config])
