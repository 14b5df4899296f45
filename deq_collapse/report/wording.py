"""Numbers as text, and the findings of a study in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import stdev

from deq_collapse.analysis.measures import Kind, Measure
from deq_collapse.analysis.pairing import Comparison
from deq_collapse.runs.record import COLLAPSED, MISSED, SAME_SIZE, Run
from deq_collapse.runs.study import Study

NONE = "–"

ENDS = {
    "steps": "trainer.max_steps was reached",
    "time": "its time was up",
    "early stopping": "early stopping",
    "stopped": "a callback stopped it",
}
"""Descriptions of what ended a run before its plan."""


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
    """A share as a percentage with two decimals, as 1,000 test images justify."""
    return f"{100 * value:.2f}%" if math.isfinite(value) else NONE


def magnitude(value: float) -> str:
    """A count with a metric prefix: 1.23 M."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return number(value)


def over_seeds(values: Sequence[float | None], form: Callable[[float], str] = number) -> str:
    """Mean ± standard deviation, the value alone if all are equal, a dash if there are none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return NONE
    mean = math.fsum(known) / len(known)
    if min(known) == max(known):
        return form(known[0])
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))
    if form is number and mean >= 1e-3:
        # The deviation has two digits, and the mean has the same number of decimals.
        decimals = max(0, 1 - math.floor(math.log10(deviation)))
        return f"{mean:,.{decimals}f} ± {deviation:,.{decimals}f}"
    return f"{form(mean)} ± {form(deviation)}"


def summarised(values: Sequence[float | None], measure: Measure) -> tuple[str, str]:
    """Mean over runs and, for several runs, ± their standard deviation; a dash without values.

    Runs without a value are counted if the measure has a word for them.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    without = len(values) - len(known)
    if not known:
        return (measure.absent or NONE) if values else NONE, ""
    mean, deviation = math.fsum(known) / len(known), stdev(known) if len(known) > 1 else 0.0
    uncertainty = 0.0 if abs(mean) < 1e-3 else deviation
    spread = f"± {_plain(deviation, measure.kind, uncertainty)}" if len(known) > 1 else ""
    words = f"{without} {measure.absent}" if without and measure.absent else ""
    return _plain(mean, measure.kind, uncertainty), " ".join(filter(None, (spread, words)))


def told_effect(comparison: Comparison, measure: Measure) -> tuple[str, str]:
    """The effect of a comparison, signed or as a factor, and its interval; a dash if there is no effect.

    They have the decimals of half the interval's width; factors over more than a decade two digits each, for
    those of a small one would all be zeros.
    """
    if not comparison.n:
        return NONE, ""
    low, high = comparison.interval
    width = (high - low) / 2 if math.isfinite(high - low) else 0.0
    wide = comparison.ratio and high > 10 * low
    effect, *ends = (
        _plain(value, measure.kind, value if wide else width) for value in (comparison.effect, low, high)
    )
    if comparison.ratio:
        effect = f"×{effect}"
    elif comparison.effect > 0:
        effect = f"+{effect}"
    return effect, f"[{ends[0]}, {ends[1]}]" if math.isfinite(low) else ""


def told_seeds(comparison: Comparison) -> str:
    """Which seeds a comparison is of, and which have a sound run on one side only."""
    seeds, unpaired = comparison.differences, comparison.unpaired
    words = [f"seeds {', '.join(seeds)}"] if seeds else []
    return "; ".join([*words, *([f"without a pair: {', '.join(unpaired)}"] if unpaired else [])])


def told_p(p: float) -> str:
    """A p value with three decimals."""
    if math.isnan(p):
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _plain(value: float, kind: Kind, uncertainty: float) -> str:
    """A value to two digits of its uncertainty, or to three digits if that is 0; shares in per cent."""
    if not math.isfinite(value):
        return NONE
    if kind == "share":
        return f"{100 * value:.2f}".replace("-", "−")
    if not 1e-6 <= uncertainty < 1e6:
        return whole(value).replace("-", "−") if value == round(value) else number(value)
    decimals = max(0, 1 - math.floor(math.log10(uncertainty)))
    return f"{value:,.{decimals}f}".replace("-", "−")


def outcome(run: Run) -> tuple[str, str]:
    """Whether a run collapsed, and the evidence: the terminal phase and NC1 to NC3 of the training split."""
    phase = "error never 0" if run.terminal_epoch is None else f"error 0 from epoch {run.terminal_epoch}"
    names = {"nc1": "NC1", "nc2_etf_means": "NC2", "nc3": "NC3"}
    values = ", ".join(f"{names[key]} {number(run.train.get(key, math.nan))}" for key in COLLAPSED)
    word = "variability only" if run.variability_collapsed else "not collapsed"
    mark = ("" if run.solved("train") else " †") + ("" if run.complete else " ‡")
    return "collapsed" if run.collapsed else word, f"{phase}, {values}{mark}"


def end_warning(run: Run) -> str | None:
    """A sentence if a run ended before its plan."""
    end = run.end
    if end is None or end.as_planned:
        return None
    part = "" if end.whole_epochs == run.epochs else f", the last of them cut short, after {run.steps} steps"
    plan = f"{run.epochs} of {end.planned_epochs} epochs" if end.planned_epochs else f"{run.epochs} epochs"
    return f"it ended after {plan}{part}: {ENDS.get(end.by, end.by)}."


def solver_warning(run: Run) -> str | None:
    """Sentences if solves missed their tolerance too often to call the features fixed points, or the
    gradients those of fixed points.
    """
    solver, sentences = run.solver, []
    if solver is None:
        return None
    worst = solver.unconverged_worst_epoch
    if worst is None:
        sentences.append("it ended before it solved for any fixed point, in unrolled pre-training.")
    elif worst > MISSED:
        sentences.append(
            f"in its worst epoch {percent(worst)} of the training samples missed the solver's tolerance of"
            f" {number(solver.tolerance)} ({percent(solver.unconverged or 0.0)} in the last epoch);"
            " such features are not fixed points."
        )
    for split, values in (("training", run.train), ("validation", run.validation), ("test", run.test)):
        if (share := values.get("unconverged", 0.0)) > MISSED:
            sentences.append(
                f"where the {split} split was measured, {percent(share)} of its images missed the tolerance;"
                " what was measured of them is not of fixed points."
            )
    missed = solver.backward_unconverged_worst_epoch or 0.0
    if missed > MISSED:
        sentences.append(
            f"in its worst epoch the gradients of {percent(missed)} of the training samples missed the"
            f" backward solver's tolerance of {number(solver.backward_tolerance or math.nan)}"
            f" ({percent(solver.backward_unconverged or 0.0)} in the last epoch); such gradients are not"
            " those of a fixed point."
        )
    return " ".join(sentences) or None


def headline(study: Study) -> str:
    """How many of the study's runs collapsed, and what that means; how many are still missing."""
    collapsed = sum(run.collapsed for run in study.runs)
    missing = len(study.planned) - len(study.runs)
    grid = f" {len(study.runs)} of the grid’s {len(study.planned)} runs are finished." if missing > 0 else ""
    some = sum(run.variability_collapsed and not run.collapsed for run in study.runs)
    more = f" In {some} more within-class variability alone did." if some else ""
    missed = sum(not run.converged for run in study.runs)
    unconverged = (
        f" {missed} runs missed fixed points for more than {MISSED:.1%} of a split’s images; what was"
        " measured there, marked †, enters no comparison, and nothing does of a run that missed them in"
        " training."
        if missed
        else ""
    )
    cut = sum(not run.complete for run in study.runs)
    ended = (
        f" {cut} runs, marked ‡, ended before their plan; they are compared only with runs that trained"
        " equally long."
        if cut
        else ""
    )
    levels = ", ".join(f"{level:g}" for level in COLLAPSED.values())
    return (
        f"{collapsed} of {len(study.runs)} runs collapsed: training error reached 0, and training NC1, NC2"
        f" and NC3 ended at or below {levels}.{more}{unconverged}{ended}{grid}"
    )


def parameter_warnings(study: Study) -> list[tuple[str, str]]:
    """A sentence for each setting whose refinements differ in their number of parameters."""
    sentences = []
    for setting, cell in study.cells.items():
        totals = {name: runs[0].parameters["total"] for name, runs in cell.items()}
        if max(totals.values()) > (1 + SAME_SIZE) * min(totals.values()):
            sides = ", ".join(f"{whole(total)} ({name})" for name, total in totals.items())
            words = f"the parameters differ by more than {SAME_SIZE:.0%}: {sides}."
            sentences.append((setting, words))
    return sentences
