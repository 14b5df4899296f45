"""Which runs collapsed, at a glance: a row per setting and refinement, a place per seed."""

from __future__ import annotations

from dataclasses import dataclass

from deq_collapse.analysis.settings import Setting, settings
from deq_collapse.runs.record import Run
from deq_collapse.runs.study import Study


@dataclass(frozen=True)
class OutcomeRow:
    """The runs of one setting and refinement in the order of the seeds."""

    setting: Setting
    refinement: str
    runs: list[list[Run]]


@dataclass(frozen=True)
class OutcomeTable:
    """All runs; `blocks` holds the rows of each setting."""

    seeds: list[str]
    blocks: list[list[OutcomeRow]]


def outcome_table(study: Study) -> OutcomeTable:
    """Every run in its place; a place holds several runs if they have no distinct seeds."""
    axes = [*study.planned, *(run.axes for run in study.runs)]
    seeds = list(dict.fromkeys(entry.get("seed", "") for entry in axes))
    blocks = [
        [
            OutcomeRow(
                setting,
                refinement,
                [[run for run in slot.runs if run.axes.get("seed", "") == seed] for seed in seeds],
            )
            for refinement, slot in setting.slots.items()
        ]
        for setting in settings(study)
    ]
    return OutcomeTable(seeds, blocks)
