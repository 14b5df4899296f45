"""The tables of a study: refinements side by side in every setting, over seeds, with their paired tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from deq_collapse.analysis.measures import FAMILIES, Family, Measure
from deq_collapse.analysis.pairing import LEVEL, Comparison, holm
from deq_collapse.analysis.settings import Setting, Slot, by_seed, compared, refinements, settings
from deq_collapse.runs.record import Run
from deq_collapse.runs.study import Study


@dataclass(frozen=True)
class Entry:
    """One measure in one line of a table: both sides by seed, and the comparison of those that are `fair`."""

    measure: Measure
    baseline: dict[str, float | None]
    other: dict[str, float | None]
    comparison: Comparison
    adjusted: float

    @property
    def significant(self) -> bool:
        """After correction."""
        return self.adjusted < LEVEL


@dataclass(frozen=True)
class Line:
    """One setting with one refinement beside the baseline."""

    setting: Setting
    baseline: str
    refinement: str
    entries: tuple[Entry, ...]

    @property
    def slots(self) -> dict[str, Slot]:
        """The slots of the compared refinements, empty if the grid has none."""
        names = [name for name in (self.baseline, self.refinement) if name]
        return {name: self.setting.slots.get(name, Slot((), 0)) for name in names}

    @property
    def unconverged(self) -> int:
        """Number of runs of the line that missed fixed points and are excluded from some comparisons."""
        splits = {entry.measure.split for entry in self.entries}
        runs = [run for slot in self.slots.values() for run in slot.runs]
        return sum(not all(run.solved(split) for split in splits) for run in runs)

    @property
    def cut(self) -> int:
        """Number of runs of the line that ended early and are compared only with equally long ones."""
        return sum(not run.complete for slot in self.slots.values() for run in slot.runs)


@dataclass(frozen=True)
class Table:
    """A family of measures for all settings.

    Attributes:
        baseline: the refinement that the others are compared with.
        others: the refinements compared with it; empty if the study has only one.
        tests: number of p values adjusted together.
    """

    family: Family
    baseline: str
    others: tuple[str, ...]
    measures: tuple[Measure, ...]
    lines: tuple[Line, ...]
    tests: int


def comparison_tables(study: Study) -> list[Table]:
    """The tables of all families with a value, in order."""
    tables = (family_table(study, family) for family in FAMILIES)
    return [table for table in tables if table.lines and table.measures]


def family_table(study: Study, family: Family) -> Table:
    """One family, without columns that no run has and without balanced accuracy equal to the overall one."""
    names = refinements(study)
    kept = [s for s in settings(study) if family.imbalance is None or s.imbalance == family.imbalance]
    runs = [run for setting in kept for run in setting.runs]
    measures = _shown(family.measures, runs)
    baseline, *others = names or [""]
    lines = [
        Line(
            setting, baseline, other, tuple(_entry(measure, setting, baseline, other) for measure in measures)
        )
        for setting in kept
        for other in (others or [""])
        if baseline in setting.slots or other in setting.slots
    ]
    corrected, tests = adjusted_lines(lines)
    return Table(family, baseline, tuple(others), measures, corrected, tests)


def adjusted_lines(lines: Sequence[Line]) -> tuple[tuple[Line, ...], int]:
    """Lines with the p values of all their entries adjusted together, and the number of tests."""
    adjusted = iter(holm([entry.comparison.p for line in lines for entry in line.entries]))
    corrected = tuple(
        replace(line, entries=tuple(replace(entry, adjusted=next(adjusted)) for entry in line.entries))
        for line in lines
    )
    return corrected, sum(not math.isnan(entry.comparison.p) for line in lines for entry in line.entries)


def _entry(measure: Measure, setting: Setting, baseline: str, other: str) -> Entry:
    sides = [setting.slots.get(name, Slot((), 0)).runs for name in (baseline, other)]
    one, two = (by_seed(runs, measure) for runs in sides)
    return Entry(measure, one, two, compared(sides[0], sides[1], measure), math.nan)


def _shown(measures: Sequence[Measure], runs: Sequence[Run]) -> tuple[Measure, ...]:
    """Measures that some run has, without a balanced accuracy that always equals the overall one."""
    balanced = any(
        abs(run.test.get("balanced_accuracy", math.nan) - run.test.get("accuracy", math.nan)) > 1e-6
        for run in runs
    )
    return tuple(
        measure
        for measure in measures
        if (balanced or measure.key != "test_balanced_accuracy")
        and any(math.isfinite(value) for run in runs if (value := measure.value(run)) is not None)
    )
