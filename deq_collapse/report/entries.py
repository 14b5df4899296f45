"""One line of a table as texts."""

from deq_collapse.analysis.tables import Entry, Line
from deq_collapse.report.wording import summarised, told_effect
from deq_collapse.runs.setting import short


def baseline_text(entry: Entry) -> tuple[str, str]:
    """Mean and deviation of the baseline."""
    return summarised(list(entry.baseline.values()), entry.measure)


def other_text(entry: Entry) -> tuple[str, str]:
    """Mean and deviation of the side compared with it."""
    return summarised(list(entry.other.values()), entry.measure)


def effect_text(entry: Entry) -> tuple[str, str]:
    """Effect and interval."""
    return told_effect(entry.comparison, entry.measure)


def runs_text(line: Line) -> str:
    """The number of runs of a line: `n = 3`, or which side lacks some; † counts the unconverged, ‡ those that
    ended before their plan.
    """
    marks = {"†": line.unconverged, "‡": line.cut}
    return ", ".join([_counted(line), *(f"{mark} {count}" for mark, count in marks.items() if count)])


def _counted(line: Line) -> str:
    counts = {name: len(slot.runs) for name, slot in line.slots.items()}
    if len(set(counts.values())) == 1 and not any(slot.missing for slot in line.slots.values()):
        return f"n = {next(iter(counts.values()))}"
    parts = {
        name: f"{len(slot.runs)} of {max(slot.planned, *counts.values())}"
        for name, slot in line.slots.items()
    }
    if len(set(parts.values())) == 1:
        return f"n = {next(iter(parts.values()))}"
    return ", ".join(f"{short(name)} {part}" for name, part in parts.items())
