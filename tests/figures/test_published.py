"""Curves that others published stand behind a study's own: in our units, in the setting they belong to."""

from collections.abc import Callable
from math import e
from pathlib import Path

import pytest

from deq_collapse.cli import main
from deq_collapse.figures.published import PANELS, published_figure
from deq_collapse.report import sections
from deq_collapse.report.sections import figure_sections
from deq_collapse.runs.published import read_published
from deq_collapse.runs.study import read_study

MakeStudy = Callable[..., Path]

TABLE = """K_A,R,model,epoch,quantity,value
3,10,DEQ,0,accuracy,20
3,10,DEQ,9,accuracy,50
3,10,DEQ,0,log_nc1,2
3,10,DEQ,9,log_nc1,-1
3,10,ResNet-18,9,nc2,0.5
3,10,ResNet-18,9,nc3,0.5
5,10,DEQ,9,nc3,0.1
"""


@pytest.fixture(autouse=True)
def _no_other_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds and have tests of their own."""
    monkeypatch.setattr(sections, "SECTIONS", (sections._published,))


@pytest.fixture
def study(make_study: MakeStudy) -> Path:
    return make_study()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "curves.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


def test_published_values_are_drawn_in_our_units_in_their_own_setting_alone(study: Path, table: Path) -> None:
    assert main(["study", "report", str(study), "--published", str(table)]) == 0
    found = read_study(study)
    (section,) = (s for s in figure_sections(found) if s.title == "Beside published curves")
    assert [drawing.caption for drawing in section.drawings] == ["step, K_A=3, R=10"]
    figure = section.drawings[0].draw()
    drawn = [
        {(float(x), round(float(y), 6)) for line in axes.lines for x, y in line.get_xydata()}
        for axes in figure.axes
    ]
    assert {(1, 0.2), (10, 0.5)} <= drawn[0]
    assert {(1, round(e**2, 6)), (10, round(e**-1, 6))} <= drawn[1]
    assert (10, 0.5) in drawn[2]
    assert (10, 0.25) in drawn[3]
    assert not any(y == pytest.approx(0.01) for _, y in drawn[3])
    names = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"published DEQ", "published ResNet-18", "explicit, train"} <= names


def test_a_report_drawn_again_still_has_them_and_one_without_has_none(study: Path, table: Path) -> None:
    assert main(["study", "report", str(study)]) == 0
    assert "Beside published curves" not in (study / "report.html").read_text(encoding="utf-8")
    assert main(["study", "report", str(study), "--published", str(table)]) == 0
    first = (study / "report.html").read_bytes()
    assert b"Beside published curves" in first
    table.unlink()
    assert main(["study", "report", str(study)]) == 0
    assert (study / "report.html").read_bytes() == first


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ("K_A,R,model,epoch,value\n3,10,DEQ,0,1\n", "lacks the columns quantity"),
        (TABLE + "3,10,DEQ,9,nc5,1\n", "one of accuracy, log_nc1, nc2, nc3"),
        (TABLE + "3,10,DEQ,9,nc3,low\n", "is not a table"),
    ],
)
def test_another_table_is_one_sentence_and_changes_nothing(
    study: Path, table: Path, content: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is None:
        table.unlink()
    else:
        table.write_text(content, encoding="utf-8")
    assert main(["study", "report", str(study), "--published", str(table)]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert read_published(study) is None
    assert not (study / "report.html").exists()


def test_every_panel_is_drawn_of_a_setting_without_published_curves_of_it(study: Path, table: Path) -> None:
    main(["study", "report", str(study), "--published", str(table)])
    found = read_study(study)
    assert found.published is not None
    accuracy = found.published[found.published["metric"] == "accuracy"]
    figure = published_figure(found.cells["step, K_A=3, R=10"], accuracy)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [panel.title for panel in PANELS]
