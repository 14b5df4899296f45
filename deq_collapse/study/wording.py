"""Numbers as text, and what a study found in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from deq_collapse.study.records import COLLAPSE_FALL, Run, Study

UNCONVERGED_WARNING = 0.01
"""A larger share of an epoch's training samples without a fixed point is worth a warning."""

PARAMETER_TOLERANCE = 0.01
"""Networks that differ by more are not equal."""

NONE = "–"


def number(value: float) -> str:
    """Three significant digits: 0.0123, 1,234, 1.2×10⁻⁵."""
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 999.5:
        return f"{value:#.3g}".rstrip(".").replace("-", "−")
    if 999.5 <= abs(value) < 1e9:
        return f"{value:,.0f}".replace("-", "−")
    mantissa, exponent = f"{value:.1e}".replace("-", "−").split("e")
    power = str(int(exponent.replace("−", "-"))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{power}"


def whole(value: float) -> str:
    """A count, with separators: 28,650."""
    return f"{value:,.0f}"


def percent(value: float) -> str:
    """A share as a percentage with two decimals, as 1,000 test images warrant."""
    return f"{100 * value:.2f}%" if math.isfinite(value) else NONE


def magnitude(value: float) -> str:
    """A count with a metric prefix: 1.23 M."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return number(value)


def over_seeds(values: Sequence[float | None], form: Callable[[float], str] = number) -> str:
    """Mean ± standard deviation, the value alone where all are the same, a dash where there is none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return NONE
    mean = math.fsum(known) / len(known)
    if min(known) == max(known):
        return form(known[0])
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))
    if form is number and mean >= 1e-3:
        # The deviation has two digits, the mean as many decimals as it.
        decimals = max(0, 1 - math.floor(math.log10(deviation)))
        return f"{mean:,.{decimals}f} ± {deviation:,.{decimals}f}"
    return f"{form(mean)} ± {form(deviation)}"


def nc1_first(run: Run) -> float:
    """Training NC1 at the first measured epoch; nan where it was never measured."""
    curve = run.curve("train", "nc1")
    return float(curve.iloc[0]) if len(curve) else math.nan


def verdict(run: Run) -> str:
    """What one run did: terminal phase, the fall of training NC1, and in words where that is no collapse."""
    if run.terminal_epoch is None:
        phase = f"never reached the terminal phase in {run.epochs} epochs"
    else:
        phase = f"reached the terminal phase at epoch {run.terminal_epoch} of {run.epochs}"
    ends = f"({number(nc1_first(run))} → {number(run.train.get('nc1', math.nan))})"
    if not math.isfinite(run.nc1_fall):
        fall = "the fall of training NC1 is not a finite number"
    elif run.nc1_fall >= 1:
        fall = f"training NC1 fell by a factor of {number(run.nc1_fall)} {ends}"
    else:
        fall = f"training NC1 rose by a factor of {number(1 / run.nc1_fall)} {ends}"
    if run.collapsed:
        return f"{phase}; {fall}."
    why = (
        "its training error never was 0"
        if run.nc1_fall >= COLLAPSE_FALL
        else f"a factor of at least {COLLAPSE_FALL:g} is asked"
    )
    return f"{phase}; {fall}. This run's curve is not collapsed: {why}."


def solver_warning(run: Run) -> str | None:
    """Sentences where fixed points were missed too often to call the features fixed points, or the gradients
    theirs.
    """
    solver, sentences = run.solver, []
    if solver is None:
        return None
    if solver.unconverged_worst_epoch > UNCONVERGED_WARNING:
        sentences.append(
            f"in its worst epoch {percent(solver.unconverged_worst_epoch)} of the training samples missed the"
            f" solver's tolerance of {number(solver.tolerance)} ({percent(solver.unconverged)} in the last"
            " epoch); such features are not fixed points."
        )
    missed = solver.backward_unconverged_worst_epoch or 0.0
    if missed > UNCONVERGED_WARNING:
        sentences.append(
            f"in its worst epoch the gradients of {percent(missed)} of the training samples missed the"
            f" backward solver's tolerance of {number(solver.backward_tolerance or math.nan)}"
            f" ({percent(solver.backward_unconverged or 0.0)} in the last epoch); such gradients are not"
            " those of a fixed point."
        )
    return " ".join(sentences) or None


def headline(study: Study) -> str:
    """How many of the study's runs collapsed, and what is meant by that."""
    collapsed = sum(run.collapsed for run in study.runs)
    return (
        f"{collapsed} of {len(study.runs)} runs collapsed: training error reached 0, "
        f"and training NC1 fell by a factor of at least {COLLAPSE_FALL:g}."
    )


def comparisons(study: Study) -> list[tuple[str, str]]:
    """A sentence for each setting that puts its refinements side by side, or says that one has no partner."""
    sentences = []
    for setting, cell in study.cells.items():
        if len(cell) < 2:
            (only,) = cell
            sentences.append((setting, f"only {only} runs finished, there is nothing to compare them with."))
            continue
        facts = [
            ("training NC1 ends at", "train", "nc1", number),
            ("test accuracy is", "test", "accuracy", percent),
            ("on the minority classes", "test", "accuracy_minority", percent),
        ]
        parts = []
        for words, split, metric, form in facts:
            values = {name: [getattr(run, split).get(metric) for run in runs] for name, runs in cell.items()}
            if all(value is not None for column in values.values() for value in column):
                sides = ", ".join(f"{over_seeds(column, form)} ({name})" for name, column in values.items())
                parts.append(f"{words} {sides}")
        sentences.append((setting, "; ".join(parts) + "."))
    return sentences


def parameter_warnings(study: Study) -> list[tuple[str, str]]:
    """A sentence for each setting whose refinements are not equal in parameters."""
    sentences = []
    for setting, cell in study.cells.items():
        totals = {name: runs[0].parameters["total"] for name, runs in cell.items()}
        if max(totals.values()) > (1 + PARAMETER_TOLERANCE) * min(totals.values()):
            sides = ", ".join(f"{whole(total)} ({name})" for name, total in totals.items())
            words = f"the parameters differ by more than {PARAMETER_TOLERANCE:.0%}: {sides}."
            sentences.append((setting, words))
    return sentences
