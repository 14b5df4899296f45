"""The tables of a study: refinements side by side for every setting, over seeds, with their paired tests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from deq_collapse.study.paired import LEVEL, Comparison, compare, holm
from deq_collapse.study.records import AXES_OF_IMBALANCE, Run, Study, setting_in_words
from deq_collapse.study.reported import FAMILIES, Family, Measure, imbalance_kind
from deq_collapse.study.wording import short, summarised, told_effect


@dataclass(frozen=True)
class Slot:
    """A place of the grid: the finished runs of one setting and refinement, and how many are planned."""

    runs: tuple[Run, ...]
    planned: int

    @property
    def missing(self) -> int:
        """Runs that are planned and not finished."""
        return max(0, self.planned - len(self.runs))

    @property
    def implicit(self) -> bool:
        """Whether its runs solve for a fixed point."""
        return any(run.implicit for run in self.runs)


@dataclass(frozen=True)
class Setting:
    """A setting and its slots by refinement, those that solve for a fixed point last.

    Attributes:
        group: what it shares with settings that differ in imbalance alone, in words; may be empty.
        heading, label: group and imbalance in words; where no group has two settings, nothing and the name.
    """

    name: str
    group: str
    heading: str
    label: str
    slots: dict[str, Slot]

    @property
    def runs(self) -> Iterator[Run]:
        """Of all refinements."""
        return (run for slot in self.slots.values() for run in slot.runs)

    @property
    def baseline(self) -> str | None:
        """The first explicit refinement that has runs: what its DEQs are compared with; None without one."""
        return next((name for name, slot in self.slots.items() if slot.runs and not slot.implicit), None)

    @property
    def implicit(self) -> list[str]:
        """The refinements that solve for a fixed point."""
        return [name for name, slot in self.slots.items() if slot.implicit]

    @property
    def imbalance(self) -> str | None:
        """`imbalance_kind` of its runs; None where none is finished."""
        return next((imbalance_kind(run) for run in self.runs), None)


@dataclass(frozen=True)
class Entry:
    """One measure in one line of a table: both sides by seed, and what comparing the converged runs says."""

    measure: Measure
    baseline: dict[str, float | None]
    other: dict[str, float | None]
    comparison: Comparison
    adjusted: float

    @property
    def baseline_text(self) -> tuple[str, str]:
        """Mean and deviation."""
        return summarised(list(self.baseline.values()), self.measure)

    @property
    def other_text(self) -> tuple[str, str]:
        """Mean and deviation."""
        return summarised(list(self.other.values()), self.measure)

    @property
    def effect_text(self) -> tuple[str, str]:
        """Effect and interval."""
        return told_effect(self.comparison, self.measure)

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
        """Of the refinements that are compared, empty where the grid has none."""
        names = [name for name in (self.baseline, self.refinement) if name]
        return {name: self.setting.slots.get(name, Slot((), 0)) for name in names}

    @property
    def unconverged(self) -> int:
        """Runs behind the line that missed fixed points, and enter no comparison."""
        return sum(not run.converged for slot in self.slots.values() for run in slot.runs)

    @property
    def runs(self) -> str:
        """How many runs stand behind the line: `n = 3`, or which side lacks some; † for the unconverged."""
        return self._counted + (f", † {self.unconverged}" if self.unconverged else "")

    @property
    def _counted(self) -> str:
        counts = {name: len(slot.runs) for name, slot in self.slots.items()}
        if len(set(counts.values())) == 1 and not any(slot.missing for slot in self.slots.values()):
            return f"n = {next(iter(counts.values()))}"
        parts = {
            name: f"{len(slot.runs)} of {max(slot.planned, *counts.values())}"
            for name, slot in self.slots.items()
        }
        if len(set(parts.values())) == 1:
            return f"n = {next(iter(parts.values()))}"
        return ", ".join(f"{short(name)} {part}" for name, part in parts.items())


@dataclass(frozen=True)
class Table:
    """A family of measures for all settings.

    Attributes:
        baseline: the refinement that the others are compared with.
        others: what is compared with it; empty where the study has one refinement, whose values are all.
        tests: how many p values were adjusted together.
    """

    family: Family
    baseline: str
    others: tuple[str, ...]
    measures: tuple[Measure, ...]
    lines: tuple[Line, ...]
    tests: int


def settings(study: Study) -> list[Setting]:
    """Every setting that is planned or has runs: group by group, else in the order of the grid."""
    places: dict[str, dict[str, list[Run]]] = {}
    planned: Counter[tuple[str, str]] = Counter()
    axes_of: dict[str, Mapping[str, str]] = {}
    only_data = study.runs[0].dataset if study.runs else study.name  # where the refinement is the only axis
    for axes in study.planned:
        if "refinement" not in axes:
            continue  # then only a run tells what it is
        setting, refinement = setting_in_words(axes) or only_data, axes["refinement"]
        places.setdefault(setting, {}).setdefault(refinement, [])
        planned[setting, refinement] += 1
        axes_of.setdefault(setting, axes)
    for run in study.runs:
        places.setdefault(run.setting, {}).setdefault(run.refinement, []).append(run)
        axes_of.setdefault(run.setting, run.axes)
    implicit = {"equilibrium"} | {run.refinement for run in study.runs if run.implicit}
    words = {name: _words(name, axes_of[name]) for name in places}
    groups = Counter(group for group, _ in words.values())
    alone = max(groups.values(), default=0) < 2
    return [
        Setting(
            name,
            words[name][0],
            *(("", name) if alone else words[name]),
            {
                refinement: Slot(tuple(runs), max(planned[name, refinement], len(runs)))
                for refinement, runs in sorted(places[name].items(), key=lambda item: item[0] in implicit)
            },
        )
        for group in groups
        for name in places
        if words[name][0] == group
    ]


def refinements(study: Study) -> list[str]:
    """Those of a study, those that solve for a fixed point last."""
    every = settings(study)
    names = dict.fromkeys(name for setting in every for name in setting.slots)
    implicit = {"equilibrium"}.union(*(setting.implicit for setting in every))
    return sorted(names, key=lambda name: name in implicit)


def comparison_tables(study: Study) -> list[Table]:
    """The tables of all families that have a value, in order."""
    tables = (family_table(study, family) for family in FAMILIES)
    return [table for table in tables if table.lines and table.measures]


def family_table(study: Study, family: Family) -> Table:
    """One family, without columns that no run has, nor balanced accuracy where it is overall accuracy."""
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
    return corrected, sum(entry.comparison.remark == "" for line in lines for entry in line.entries)


def by_seed(runs: Sequence[Run], measure: Measure) -> dict[str, float | None]:
    """A measure's values by seed; runs that name no seed are told apart and pair with nothing, unless one."""
    seeds = [run.axes.get("seed", "") for run in runs]
    return {
        seed if seeds.count(seed) == 1 else run.name: measure.value(run)
        for seed, run in zip(seeds, runs, strict=True)
    }


def _entry(measure: Measure, setting: Setting, baseline: str, other: str) -> Entry:
    sides = [setting.slots.get(name, Slot((), 0)).runs for name in (baseline, other)]
    one, two = (by_seed(runs, measure) for runs in sides)
    fixed, other_fixed = (by_seed([run for run in runs if run.converged], measure) for runs in sides)
    return Entry(measure, one, two, compare(fixed, other_fixed, measure.kind == "factor"), math.nan)


def _shown(measures: Sequence[Measure], runs: Sequence[Run]) -> tuple[Measure, ...]:
    """Those that some run has, without a balanced accuracy that is the overall one throughout."""
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


def _words(name: str, axes: Mapping[str, str]) -> tuple[str, str]:
    """Group and label of a setting."""
    imbalance = {axis: label for axis, label in axes.items() if axis in AXES_OF_IMBALANCE}
    if not imbalance:
        return "", name
    rest = {axis: label for axis, label in axes.items() if axis not in AXES_OF_IMBALANCE}
    return setting_in_words(rest), setting_in_words(imbalance)
