"""docs/python.md, run block after block as a user would, and what it promises."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

import deq_collapse
from deq_collapse import UserError, read_study, run_trainer

PAGE = Path(__file__).parents[2] / "docs" / "python.md"

pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:It is recommended to use"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The directory it was run in, and its variables."""
    place = tmp_path_factory.mktemp("page")
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    variables: dict[str, Any] = {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), variables)
    return place, variables


def test_every_block_runs_and_the_working_directory_gets_what_it_names(
    page: tuple[Path, dict[str, Any]],
) -> None:
    place, _ = page
    assert {path.name for path in place.iterdir()} == {"outputs", "curves.pdf"}
    left = {path.name for path in (place / "outputs/python/equilibrium").iterdir()}
    assert {"history.csv", "result.json", "manifest.json", "along.csv", "last.ckpt"} <= left


def test_a_study_is_read_as_tables_and_figures(page: tuple[Path, dict[str, Any]]) -> None:
    place, _ = page
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    study = read_study(place / "outputs/python")
    assert list(study.runs["refinement"]) == ["equilibrium", "explicit"]
    assert study.runs["setting"].nunique() == 1
    recorded = pd.read_csv(place / "outputs/python/explicit/history.csv")
    ours = study.history[study.history["run"] == "explicit"][list(recorded.columns)]
    pd.testing.assert_frame_equal(ours.reset_index(drop=True), recorded)
    assert set(study.along["run"]) == {"explicit", "equilibrium"}
    assert isinstance(study.figure(study.figures[0]), Figure)
    with pytest.raises(UserError, match="there is no figure nothing"):
        study.figure("nothing")
    assert read_study(place / "outputs/python/explicit").runs["name"].tolist() == ["explicit"]
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before  # reading writes nothing
    with pytest.raises(UserError, match="no finished run"):
        read_study(place)


def test_a_finished_run_is_not_overwritten(page: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(UserError, match="holds a finished run"):
        run_trainer(page[0] / "outputs/python/explicit", max_epochs=1)


def test_the_root_exports_what_it_lists_and_imports_nothing_before() -> None:
    assert all(getattr(deq_collapse, name) is not None for name in deq_collapse.__all__)
    assert set(deq_collapse.__all__) <= set(dir(deq_collapse))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = deq_collapse.nothing
    script = (
        "import sys, deq_collapse; assert 'torch' not in sys.modules; deq_collapse.measure;"
        " sys.exit('lightning.pytorch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_record_that_marks_a_run_as_finished_is_written_last(tmp_path: Path) -> None:
    order = [type(callback).__name__ for callback in run_trainer(tmp_path / "run", max_epochs=1).callbacks]
    assert order.index("Along") < order.index("RunRecord")
    assert order.index("MeasurementSchedule") < order.index("RunRecord")
