"""A study, or any directory of runs, as pandas tables and matplotlib figures, without writing files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from deq_collapse.analysis.by_epoch import effect_curves
from deq_collapse.analysis.contrasts import effect_tables, equal_loss_effects
from deq_collapse.errors import UserError, nearest
from deq_collapse.report.sections import Drawing, all_drawings, figure_sections
from deq_collapse.report.table_files import effect_records, epoch_records, flat
from deq_collapse.runs.record import Run
from deq_collapse.runs.study import Contrast, Study, study_of
from deq_collapse.study.results import gathered


def read_study(path: str | Path) -> StudyResults:
    """Reads the files of finished runs.

    Args:
        path: the directory of a study, e.g. ``outputs/studies/demo``, of runs, e.g. ``outputs/runs``, or of
            one run.

    Raises:
        UserError: if there is no finished run, or a file is damaged.
    """
    directory = Path(path)
    found = gathered(directory)
    if not found["runs"]:
        raise UserError(
            f"there is no finished run in {directory}: give the directory of a study, or of runs."
        )
    return StudyResults(study_of(directory, found))


@dataclass(frozen=True)
class StudyResults:
    """The tables and figures of a study.

    Attributes:
        study: the same as typed values.
    """

    study: Study

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per finished run: its name, place, costs, and all final values, such as ``train_nc1``."""
        return pd.DataFrame([flat(run) for run in self.study.runs])

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per run and logged value: ``run``, its axes, epoch, step, split, metric, value."""
        return _joined(self.study.runs, lambda run: run.history)

    @cached_property
    def along(self) -> pd.DataFrame:
        """One row per run and value along its computation: ``run``, its axes, split, evaluations, module,
        metric, value.
        """
        return _joined(self.study.runs, lambda run: run.along)

    def effect(self, axis: str, before: str, after: str, *, at_equal_loss: bool = False) -> pd.DataFrame:
        """What one change adds, everything else equal, paired by seed: a row for every place and measure, and
        for the mean over places, with the columns of the report's ``effects.csv``. Accuracies are shares.

        Args:
            axis: on which the two sides differ, e.g. ``refinement``.
            before: label of the first side on that axis.
            after: label of the second.
            at_equal_loss: compare each pair at the higher of its two final training losses, not at its end.

        Raises:
            UserError: if no run has that axis, or that label on it.
        """
        tables = equal_loss_effects if at_equal_loss else effect_tables
        found = tables(self._with_contrast(axis, before, after))
        return pd.DataFrame([row for table in found for row in effect_records(table)])

    def effect_by_epoch(self, axis: str, before: str, after: str) -> pd.DataFrame:
        """The same epoch by epoch: a row for every place, measure and epoch at which all pairs were measured,
        with the columns of the report's ``effects_by_epoch.csv``. Intervals hold one by one.

        Args:
            axis: on which the two sides differ, e.g. ``refinement``.
            before: label of the first side on that axis.
            after: label of the second.

        Raises:
            UserError: if no run has that axis, or that label on it.
        """
        found = effect_curves(self._with_contrast(axis, before, after))
        return pd.DataFrame([row for curve in found for row in epoch_records(curve)])

    def _with_contrast(self, axis: str, before: str, after: str) -> Study:
        """The study with this one contrast.

        Raises:
            UserError: see `effect`.
        """
        labels = list(dict.fromkeys(run.axes[axis] for run in self.study.runs if axis in run.axes))
        if not labels:
            axes = dict.fromkeys(name for run in self.study.runs for name in run.axes)
            raise UserError(f"there is no axis {axis}; {nearest(axis, axes)}")
        for label in (before, after):
            if label not in labels:
                raise UserError(f"no run is {label} on the axis {axis}; {nearest(label, labels)}")
        contrast = Contrast(f"{before} to {after}", axis, before, after)
        return replace(self.study, contrasts=(contrast,))

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the report's figures, for `figure`."""
        return tuple(self._drawings)

    def figure(self, name: str) -> Figure:
        """Draws one of the report's figures; ``savefig`` saves it.

        Raises:
            UserError: for a name that is not in `figures`.
        """
        if name not in self._drawings:
            raise UserError(f"there is no figure {name}; {nearest(name, self._drawings)}")
        return self._drawings[name].draw()

    @cached_property
    def _drawings(self) -> dict[str, Drawing]:
        return {drawing.name: drawing for drawing in all_drawings(figure_sections(self.study))}


def _joined(runs: Iterable[Run], table: Callable[[Run], pd.DataFrame | None]) -> pd.DataFrame:
    tables = [(run, found) for run in runs if (found := table(run)) is not None]
    labelled = [found.assign(**run.axes | {"run": run.name}) for run, found in tables]
    axes = list(dict.fromkeys(axis for run, _ in tables for axis in run.axes if axis != "run"))
    if not labelled:
        return pd.DataFrame(columns=["run"])
    joined = pd.concat(labelled, ignore_index=True)
    own = [column for column in tables[0][1].columns if column not in axes]
    return joined[["run", *axes, *own]]
