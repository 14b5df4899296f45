"""The settings of a study: the planned and the finished runs of each, by refinement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deq_collapse.analysis.imbalance import imbalance_kind
from deq_collapse.analysis.measures import Measure
from deq_collapse.analysis.pairing import Comparison, compare
from deq_collapse.runs.record import Run, Split
from deq_collapse.runs.setting import AXES_OF_IMBALANCE, in_words, setting_in_words
from deq_collapse.runs.study import Study


@dataclass(frozen=True)
class Slot:
    """A place of the grid: the finished runs of one setting and refinement, and the number planned."""

    runs: tuple[Run, ...]
    planned: int

    @property
    def missing(self) -> int:
        """Number of runs planned but not finished."""
        return max(0, self.planned - len(self.runs))

    @property
    def implicit(self) -> bool:
        """Whether its runs solve for a fixed point."""
        return any(run.implicit for run in self.runs)


@dataclass(frozen=True)
class Setting:
    """A setting and its slots by refinement; those that solve for a fixed point come last.

    Attributes:
        group: what it shares, in words, with settings that differ only in imbalance; may be empty.
        heading, label: group and imbalance in words; if no group has two settings, empty and the name.
    """

    name: str
    group: str
    heading: str
    label: str
    slots: dict[str, Slot]

    @property
    def runs(self) -> Iterator[Run]:
        """The runs of all refinements."""
        return (run for slot in self.slots.values() for run in slot.runs)

    @property
    def baseline(self) -> str | None:
        """The first explicit refinement with runs, with which its DEQs are compared; None without one."""
        return next((name for name, slot in self.slots.items() if slot.runs and not slot.implicit), None)

    @property
    def implicit(self) -> list[str]:
        """The refinements that solve for a fixed point."""
        return [name for name, slot in self.slots.items() if slot.implicit]

    @property
    def imbalance(self) -> str | None:
        """`imbalance_kind` of its runs; None if none is finished."""
        return next((imbalance_kind(run) for run in self.runs), None)


def settings(study: Study) -> list[Setting]:
    """Every setting that is planned or has runs: group by group, in the order of the grid within a group."""
    places: dict[str, dict[str, list[Run]]] = {}
    planned: Counter[tuple[str, str]] = Counter()
    words_of: dict[str, Mapping[str, str]] = {}
    only_data = study.runs[0].dataset if study.runs else study.name  # if the refinement is the only axis
    for axes in study.planned:
        if "refinement" not in axes:
            continue  # then only a run shows its refinement
        said = in_words(axes, study.imbalances.get(axes.get("imbalance", ""), {}))
        setting, refinement = setting_in_words(said) or only_data, axes["refinement"]
        places.setdefault(setting, {}).setdefault(refinement, [])
        planned[setting, refinement] += 1
        words_of.setdefault(setting, said)
    for run in study.runs:
        places.setdefault(run.setting, {}).setdefault(run.refinement, []).append(run)
        words_of.setdefault(run.setting, run.words)
    implicit = {"equilibrium"} | {run.refinement for run in study.runs if run.implicit}
    words = {name: _words(name, words_of[name]) for name in places}
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
    """The refinements of a study; those that solve for a fixed point come last."""
    every = settings(study)
    names = dict.fromkeys(name for setting in every for name in setting.slots)
    implicit = {"equilibrium"}.union(*(setting.implicit for setting in every))
    return sorted(names, key=lambda name: name in implicit)


def seeded(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by seed; several with one seed, or none, are keyed by name and have no pair."""
    seeds = [run.axes.get("seed", "") for run in runs]
    return {seed if seeds.count(seed) == 1 else run.name: run for seed, run in zip(seeds, runs, strict=True)}


def by_seed(runs: Sequence[Run], measure: Measure) -> dict[str, float | None]:
    """A measure's values, keyed as `seeded`."""
    return {seed: measure.value(run) for seed, run in seeded(runs).items()}


def fair(one: Sequence[Run], two: Sequence[Run], split: Split) -> tuple[list[Run], list[Run]]:
    """The runs of two sides whose values of a split may be compared seed by seed: those `solved` there,
    without seeds for which one run ended before its plan and the other did not train equally long.
    """
    first, second = ([run for run in runs if run.solved(split)] for runs in (one, two))

    def kept(run: Run, others: list[Run]) -> bool:
        partners = [other for other in others if other.axes.get("seed") == run.axes.get("seed")]
        return all(run.as_long(partner) for partner in partners)

    return [run for run in first if kept(run, second)], [run for run in second if kept(run, first)]


def compared(one: Sequence[Run], two: Sequence[Run], measure: Measure) -> Comparison:
    """The effect of the second side over the first, from the seeds whose runs are `fair`."""
    first, second = (by_seed(runs, measure) for runs in fair(one, two, measure.split))
    return compare(first, second, ratio=measure.kind == "factor")


def _words(name: str, words: Mapping[str, str]) -> tuple[str, str]:
    """Group and label of a setting."""
    imbalance = {axis: label for axis, label in words.items() if axis in AXES_OF_IMBALANCE}
    if not imbalance:
        return "", name
    rest = {axis: label for axis, label in words.items() if axis not in AXES_OF_IMBALANCE}
    return setting_in_words(rest), setting_in_words(imbalance)
