"""A part of a study: those of its runs that have given labels."""

from collections.abc import Sequence
from dataclasses import replace

from deq_collapse.errors import UserError, nearest
from deq_collapse.study.grid import StudyFile


def part(study: StudyFile, only: Sequence[str]) -> StudyFile:
    """The study with the runs alone that have, on every axis named, one of the labels given for it.

    Args:
        study: the whole study.
        only: an axis and its labels each, as ``seed=0,1``; none of them is the whole study.

    Raises:
        UserError: for an axis or a label that no run has, and where no run has all of them.
    """
    cells = study.cells
    for text in only:
        axis, given, labels = text.partition("=")
        known = list(dict.fromkeys(cell.axes[axis] for cell in study.cells if axis in cell.axes))
        if not given or not known:
            axes = ", ".join(dict.fromkeys(name for cell in study.cells for name in cell.axes))
            raise UserError(f"--only takes AXIS=LABELS, but was given {text}; the study's axes are {axes}.")
        wanted = labels.split(",")
        for label in wanted:
            if label not in known:
                raise UserError(f"--only {text}: there is no {axis} {label!r}; {nearest(label, known)}")
        cells = tuple(cell for cell in cells if cell.axes.get(axis) in wanted)
    if not cells:
        raise UserError(f"--only {' '.join(only)}: no run of the study has all of these labels.")
    return replace(study, cells=cells)
