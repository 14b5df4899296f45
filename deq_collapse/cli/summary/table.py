"""Branches side by side: a table of their costs, and remarks on it."""

from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.table import Table

from deq_collapse.callbacks.costs import TOTAL
from deq_collapse.cli.summary.branch import Branch
from deq_collapse.report.wording import NONE, magnitude, whole
from deq_collapse.runs.record import SAME_SIZE


def cost_table(branches: Sequence[Branch]) -> Table:
    """A column for each branch and, from the second on, a column for its difference from the first."""
    table = Table("", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for branch in branches:
        table.add_column(branch.name, justify="right")
        if branch is not branches[0]:
            table.add_column("%", justify="right")

    def row(label: str, values: Sequence[int | None], form: Callable[[float], str]) -> None:
        cells = [NONE if value is None else form(value) for value in values]
        table.add_row(label, *_beside(cells, [_difference(value, values[0]) for value in values]))

    def section(label: str, counts: Sequence[dict[str, int]], form: Callable[[float], str]) -> None:
        table.add_section()
        row(label, [count[TOTAL] for count in counts], form)
        for part in counts[0]:
            # A readout has a row if it has something to show.
            if part != TOTAL and (part != "readout" or any(count[part] for count in counts)):
                row(f"  {part}", [count[part] for count in counts], form)

    section("parameters", [branch.parameters for branch in branches], whole)
    section("FLOPs / image", [branch.flops for branch in branches], magnitude)
    if _solved(branches):
        row("  evaluations", [branch.evaluations for branch in branches], whole)
    section("activations / image", [branch.activations for branch in branches], _bytes)
    row("activations / step", [branch.step_activations for branch in branches], _bytes)
    return table


def remarks(branches: Sequence[Branch]) -> Iterator[str]:
    """The refinements, the meaning of the numbers, and a warning if the parameters are not equal."""
    for branch in branches:
        yield f"{branch.name}: {branch.refinement}"
    flops = "FLOPs: of an eval-mode forward pass in convolutions and matrix products; a multiply-add is two."
    if _solved(branches):
        flops += (
            " Evaluations: of the cell, at its initial weights unless --ckpt_path is given, until the last of"
            " up to 64 test images has converged."
        )
    yield flops
    steps = " and ".join(dict.fromkeys(str(branch.step) for branch in branches))
    yield f"Activations: bytes kept for the backward pass, weights not counted; a step has {steps} images."
    totals = [branch.parameters[TOTAL] for branch in branches]
    if max(totals) > (1 + SAME_SIZE) * min(totals):
        sides = ", ".join(f"{whole(branch.parameters[TOTAL])} ({branch.name})" for branch in branches)
        yield f"Warning: the parameters differ by more than {SAME_SIZE:.0%}: {sides}."


def _solved(branches: Sequence[Branch]) -> bool:
    return any(branch.evaluations for branch in branches)


def _beside(cells: Sequence[str], differences: Sequence[str]) -> list[str]:
    """Each cell followed by its difference; the first has none."""
    rest = zip(cells[1:], differences[1:], strict=True)
    return [cells[0], *(text for pair in rest for text in pair)]


def _difference(value: int | None, first: int | None) -> str:
    if value is None or not first:
        return ""
    return f"{100 * (value / first - 1):+.1f}".replace("-", "−")


def _bytes(value: float) -> str:
    text = magnitude(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"
