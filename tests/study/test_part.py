"""A part of a study is the runs that have the labels asked for, and nothing else of the study changes."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deq_collapse.errors import UserError
from deq_collapse.study.grid import Cell, StudyFile
from deq_collapse.study.part import part

AXES = {
    "family": ["free", "residual"],
    "refinement": ["once", "tied", "equilibrium"],
    "seed": ["0", "1", "2"],
}
CELLS = tuple(Cell(dict(zip(AXES, labels, strict=True)), ()) for labels in itertools.product(*AXES.values()))
STUDY = StudyFile("some", Path("outputs/studies/some"), CELLS)


@given(st.fixed_dictionaries({}, optional={a: st.lists(st.sampled_from(AXES[a]), min_size=1) for a in AXES}))
def test_it_has_the_runs_with_one_of_the_labels_on_every_axis_named(labels: dict[str, list[str]]) -> None:
    found = part(STUDY, [f"{axis}={','.join(wanted)}" for axis, wanted in labels.items()])
    assert found.directory == STUDY.directory
    for cell in CELLS:
        asked = all(cell.axes[axis] in wanted for axis, wanted in labels.items())
        assert (cell in found.cells) == asked


def test_an_axis_named_twice_asks_for_both() -> None:
    with pytest.raises(UserError, match="no run of the study has all of these labels"):
        part(STUDY, ["seed=0", "seed=1"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("refinement=teid", "there is no refinement 'teid'; did you mean tied?"),
        ("seed=0,3", "there is no seed '3'; allowed are 0, 1, 2."),
        ("seed", "takes AXIS=LABELS, but was given seed; the study's axes are family, refinement, seed."),
        ("cell=free", "but was given cell=free; the study's axes are family, refinement, seed."),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(text: str, told: str) -> None:
    with pytest.raises(UserError) as raised:
        part(STUDY, [text])
    assert told in str(raised.value)
