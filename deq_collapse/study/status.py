"""``deq-collapse study status``: the grid with every run's state, the errors, and the time left."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deq_collapse.study.estimate import Standing, time_left
from deq_collapse.study.plan import Plan

COLOURS = {"finished": "green", "running": "cyan", "interrupted": "yellow", "failed": "red", "waiting": "dim"}


def print_status(plan: Plan, cells: Sequence[Standing]) -> None:
    """Prints the grid as a table with a column per seed, the reasons of failures, and one summary line."""
    console, table = Console(highlight=False), _grid(plan, cells)
    # A truncated word would be worse than a line that the terminal wraps.
    width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    Console(width=max(console.width, width)).print(table)
    for line in (*_reasons(cells), _summary(plan, cells)):
        console.print(line, soft_wrap=True)


def left_in_words(seconds: float) -> str:
    """The time left in words, to two units."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute left"
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"about {days} d {hours} h left"
    return f"about {hours} h {minutes % 60} min left" if hours else f"about {minutes} min left"


def _grid(plan: Plan, cells: Sequence[Standing]) -> Table:
    axes = list(dict.fromkeys(axis for cell in cells for axis in cell.cell.axes if axis != "seed"))
    seeds = list(dict.fromkeys(cell.cell.axes.get("seed", "") for cell in cells))
    table = Table(*axes, *(f"seed {seed}" for seed in seeds), title=plan.study, title_justify="left")
    rows: dict[tuple[str, ...], dict[str, Text]] = {}
    for cell in cells:
        labels = tuple(cell.cell.axes.get(axis, "") for axis in axes)
        rows.setdefault(labels, {})[cell.cell.axes.get("seed", "")] = _entry(cell)
    for labels, entries in rows.items():
        table.add_row(*labels, *(entries.get(seed, Text("")) for seed in seeds))
    return table


def _entry(cell: Standing) -> Text:
    whole = cell.state == "waiting" or (cell.state == "finished" and cell.epoch >= cell.cell.epochs)
    far = "" if whole else f" {cell.epoch}/{cell.cell.epochs}"
    return Text(cell.state + far, style=COLOURS[cell.state])


def _reasons(cells: Sequence[Standing]) -> list[Text]:
    return [
        Text(f"{cell.cell.name} {cell.state}: {cell.reason}", style=COLOURS[cell.state])
        for cell in cells
        if cell.reason
    ]


def _summary(plan: Plan, cells: Sequence[Standing]) -> Text:
    counts = Counter(cell.state for cell in cells)
    parts = [f"{counts['finished']} of {len(cells)} runs finished"]
    parts += [f"{counts[state]} {state}" for state in COLOURS if state != "finished" and counts[state]]
    words = ", ".join(parts) + "."
    left = time_left(cells)
    running = counts["running"]
    if counts["running"] + counts["interrupted"] + counts["waiting"]:
        pace = f"{running} at a time" if running > 1 else "one at a time"
        told = "no run was timed yet" if left is None else f"{left_in_words(left)}, {pace}"
        words += f" {told[0].upper()}{told[1:]}."
    if counts["interrupted"] + counts["waiting"] and not running:
        begun = counts["waiting"] < len(cells)
        words += f" `{plan.command}` {'continues' if begun else 'checks every run, then starts'}."
    if counts["failed"]:
        words += f" `{plan.command} --retry` runs what failed again."
    return Text(words)
