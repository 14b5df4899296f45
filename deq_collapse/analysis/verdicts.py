"""The claims of Sun & Shi (NeurIPS 2024, arXiv 2410.23391), and the verdict of a study's runs on each.

The rule is fixed before any run is examined and is shown on the report's page: `RULE`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from scipy import stats

from deq_collapse.analysis.measures import Measure, logged, minority_accuracy
from deq_collapse.analysis.pairing import LEVEL, Comparison, holm, pool
from deq_collapse.analysis.power import pairs_needed
from deq_collapse.analysis.settings import Setting, compared, settings
from deq_collapse.analysis.unlike import unlike
from deq_collapse.runs.record import COLLAPSED, MISSED
from deq_collapse.runs.study import Study

Word = Literal["supported", "not supported", "undecided"]

RULE = (
    "Supported: the effect lies in the claimed direction, and its p value is below 0.05 after Holm’s"
    " correction over all tests of the same table. Not supported: the same in the opposite direction."
    " Undecided at this n: everything else, and whatever has fewer than three pairs; the number of seeds that"
    " would decide it is where a paired t test has a power of 80% at the level that Holm’s correction leaves,"
    " 0.05 over the number of undecided tests of the table, if the mean and the spread of these differences"
    " are the true ones. A run whose solver missed its tolerance for"
    f" more than {MISSED:.1%} of the training samples, in any epoch or where they were measured, enters no"
    " verdict; where it missed it for more of another split, its values of that split enter none. Nor does a"
    " run that ended before its plan, unless the run it is paired with trained equally long. DEQ is"
    " compared with the first explicit network of its family; what else the two differ in, such as an"
    " approximate gradient, is said beside the verdicts, and an effect may come of it. The claim on balanced"
    " data compares nothing: it is supported where the 95% interval of the share of DEQ runs that collapse"
    " (Clopper and Pearson) lies above one half, not supported where it lies below, which takes six runs or"
    " more."
)
POOLING = (
    "Pooled: differences are averaged over all imbalanced settings within each seed, and n counts seeds. A"
    " seed’s runs share their draw of images, initial weights and order of batches, so its settings are not"
    " independent repetitions. Only seeds that have a pair in every setting count."
)


@dataclass(frozen=True)
class Claim:
    """A sentence that a comparison can support or contradict.

    Attributes:
        key: its name in files.
        title: its column heading.
        sentence: the claim.
        measure: the measure compared.
        higher: whether DEQ is claimed to have the higher value.
    """

    key: str
    title: str
    sentence: str
    measure: Measure
    higher: bool = False


CLAIMS = (
    Claim(
        "nearer_etf",
        "nearer the ETF",
        "Under imbalance the class means of DEQ lie nearer the vertices of the simplex ETF.",
        logged("train", "nc2_etf_means", "NC2, training split"),
    ),
    Claim(
        "less_variability",
        "less variability",
        "Under imbalance features of DEQ vary less around their class means.",
        logged("train", "nc1", "NC1, training split", "factor"),
    ),
    Claim(
        "self_duality",
        "self-duality",
        "Under imbalance classifier and class means of DEQ are nearer self-duality.",
        logged("train", "nc3", "NC3, training split"),
    ),
    Claim(
        "minority_accuracy",
        "minority accuracy",
        "Under imbalance DEQ has the higher accuracy on minority classes.",
        minority_accuracy("test accuracy on minority (long tails: few) classes"),
        higher=True,
    ),
    Claim(
        "lower_loss",
        "lower loss",
        "Under imbalance DEQ ends at the lower training loss.",
        logged("train", "loss", "loss, training split", "factor"),
    ),
)
ALL = "all together"
"""The group of all runs if a study has several groups, such as data sets."""
COLLAPSES = (
    "Under balance DEQ collapses: training error reaches 0, and training NC1, NC2 and NC3 end at or below"
    f" {COLLAPSED['nc1']:g}, {COLLAPSED['nc2_etf_means']:g} and {COLLAPSED['nc3']:g}, where a public ResNet-9"
    " ends after 200 epochs on Fashion-MNIST."
)


@dataclass(frozen=True)
class Verdict:
    """A claim put to one setting and one DEQ, or to all imbalanced ones of a group.

    Attributes:
        claim: what is claimed.
        group: the runs it is put to, as "family free".
        baseline: the explicit network; several, joined by commas, where settings have different ones.
        deq: what is compared with it; likewise.
        setting: None for a pooled one.
        settings: how many settings have pairs.
        comparison: over seeds.
        adjusted: p after Holm's correction.
        level: of a test of an undecided claim, see `RULE`.
        unlike: what the two differ in besides being an equilibrium, see `unlike`.
    """

    claim: Claim
    group: str
    baseline: str
    deq: str
    setting: Setting | None
    settings: int
    comparison: Comparison
    adjusted: float = math.nan
    level: float = LEVEL
    unlike: tuple[str, ...] = ()

    @property
    def word(self) -> Word:
        """By `RULE`."""
        if not self.adjusted < LEVEL:
            return "undecided"
        return "supported" if (self.comparison.mean > 0) == self.claim.higher else "not supported"

    @property
    def needed(self) -> int | None:
        """The seeds that would decide an undecided claim, see `RULE`; None where that cannot be said."""
        if self.word != "undecided":
            return None
        return pairs_needed(self.comparison.differences.values(), self.level)


@dataclass(frozen=True)
class Share:
    """How many runs of one refinement collapsed under balance, with the exact interval of their share."""

    group: str
    refinement: str
    implicit: bool
    collapsed: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of Clopper and Pearson."""
        interval = stats.binomtest(self.collapsed, self.n).proportion_ci(1 - LEVEL)
        return float(interval.low), float(interval.high)

    @property
    def p(self) -> float:
        """The probability of a count this lopsided if a run were as likely to collapse as not."""
        return float(stats.binomtest(self.collapsed, self.n).pvalue)

    @property
    def word(self) -> Word:
        """By `RULE`."""
        low, high = self.interval
        return "supported" if low > 0.5 else "not supported" if high < 0.5 else "undecided"


@dataclass(frozen=True)
class Verdicts:
    """All verdicts of a study: on balanced runs; on each claim, pooled; on each setting, claim by claim."""

    collapse: tuple[Share, ...]
    pooled: tuple[Verdict, ...]
    single: tuple[Verdict, ...]

    @property
    def claims(self) -> list[list[Verdict]]:
        """The pooled ones claim by claim, each list over groups."""
        return [list(members) for _, members in groupby(self.pooled, key=lambda verdict: verdict.claim.key)]

    @property
    def unlike(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Every DEQ, and the explicit network beside it, that differ in more than being an equilibrium, with
        what that is.
        """
        found = {(v.deq, v.baseline, v.unlike): None for v in self.single if v.unlike}
        return list(found)

    @property
    def settings(self) -> list[tuple[Setting, list[Verdict]]]:
        """The single ones setting by setting, each list over claims."""
        return [
            (setting, [verdict for verdict in self.single if verdict.setting is setting])
            for setting in {id(v.setting): v.setting for v in self.single}.values()
            if setting is not None
        ]


def verdicts(study: Study) -> Verdicts:
    """The verdicts of a study's runs on the claims; empty if no setting has an explicit network and a DEQ."""
    every = [s for s in settings(study) if s.baseline and s.implicit]
    single = [
        _single(claim, setting, deq)
        for setting in every
        if setting.imbalance != "balanced"
        for deq in setting.implicit
        for claim in CLAIMS
    ]
    members: dict[str, list[Verdict]] = {}
    for verdict in single:
        members.setdefault(verdict.group, []).append(verdict)
    if len(members) > 1:
        members = {ALL: _everywhere(single)} | members
    pooled = [
        _pooled(claim, group, [verdict for verdict in some if verdict.claim is claim])
        for claim in CLAIMS
        for group, some in members.items()
    ]
    return Verdicts(_shares(every), _adjusted(pooled), _adjusted(single))


def records(found: Verdicts) -> list[dict[str, Any]]:
    """Every verdict as a flat record, for files; None stands for a missing value."""
    return [*map(_of_share, found.collapse), *map(_of_verdict, (*found.pooled, *found.single))]


def _of_share(share: Share) -> dict[str, Any]:
    return {
        "claim": "collapses_under_balance",
        "sentence": COLLAPSES,
        "group": share.group,
        "scope": "balanced",
        "compared": share.refinement,
        "measure": f"share of {share.refinement} runs that collapsed",
        "test": "exact binomial",
        "effect_is": "share",
        "effect": share.collapsed / share.n,
        "low": share.interval[0],
        "high": share.interval[1],
        "n": share.n,
        "seeds": None,
        "seeds_without_partner": None,
        "p": share.p,
        "p_holm": None,
        "verdict": share.word if share.implicit else None,
        "seeds_needed": None,
        "remark": "" if share.implicit else "for comparison; the claim is of equilibria",
        "unlike": "",
    }


def _of_verdict(verdict: Verdict) -> dict[str, Any]:
    comparison, setting = verdict.comparison, verdict.setting
    sides = "factor, equilibrium / explicit" if comparison.ratio else "difference, equilibrium - explicit"
    return {
        "claim": verdict.claim.key,
        "sentence": verdict.claim.sentence,
        "group": verdict.group,
        "scope": setting.label if setting else f"pooled over {verdict.settings} settings",
        "compared": f"{verdict.deq} with {verdict.baseline}",
        "measure": verdict.claim.measure.title,
        "test": "paired t, two-sided",
        "effect_is": sides,
        "effect": _finite(comparison.effect),
        "low": _finite(comparison.interval[0]),
        "high": _finite(comparison.interval[1]),
        "n": comparison.n,
        **comparison.seeds,
        "p": _finite(comparison.p),
        "p_holm": _finite(verdict.adjusted),
        "verdict": verdict.word,
        "seeds_needed": verdict.needed,
        "remark": comparison.remark,
        "unlike": "; ".join(verdict.unlike),
    }


def _shares(every: Sequence[Setting]) -> tuple[Share, ...]:
    """The shares of each group, and of all together if there are several; none if no DEQ has a sound run."""
    balanced = [setting for setting in every if setting.imbalance == "balanced"]
    groups = list(dict.fromkeys(setting.group for setting in balanced))
    found = []
    for group in ([ALL] if len(groups) > 1 else []) + groups:
        members = [setting for setting in balanced if group in (ALL, setting.group)]
        names = dict.fromkeys(name for setting in members for name in (*setting.implicit, *setting.slots))
        for name in names:
            slots = [setting.slots[name] for setting in members if name in setting.slots]
            runs = [run for slot in slots for run in slot.runs if run.sound("train")]
            if runs:
                implicit = any(slot.implicit for slot in slots)
                found.append(Share(group, name, implicit, sum(run.collapsed for run in runs), len(runs)))
    deqs = {share.group for share in found if share.implicit}
    return tuple(share for share in found if share.group in deqs)


def _single(claim: Claim, setting: Setting, deq: str) -> Verdict:
    baseline = setting.baseline or ""
    one, two = (setting.slots[name].runs for name in (baseline, deq))
    comparison = compared(one, two, claim.measure)
    group = setting.group
    if len(setting.implicit) > 1:
        group = ", ".join(filter(None, (group, deq)))
    differ = unlike(one[0], two[0])
    return Verdict(claim, group, baseline, deq, setting, 1, comparison, unlike=differ)


def _everywhere(single: Sequence[Verdict]) -> list[Verdict]:
    """Those of DEQs that all settings share, so that families with two DEQs do not count twice; else all."""
    found: dict[int, set[str]] = {}
    for verdict in single:
        found.setdefault(id(verdict.setting), set()).add(verdict.deq)
    common = set.intersection(*found.values())
    return [verdict for verdict in single if verdict.deq in common or not common]


def _pooled(claim: Claim, group: str, single: Sequence[Verdict]) -> Verdict:
    some = sum(verdict.comparison.n > 0 for verdict in single)
    baselines = ", ".join(dict.fromkeys(verdict.baseline for verdict in single))
    deqs = ", ".join(dict.fromkeys(verdict.deq for verdict in single))
    comparisons = [verdict.comparison for verdict in single]
    differ = tuple(dict.fromkeys(words for verdict in single for words in verdict.unlike))
    return Verdict(claim, group, baselines, deqs, None, some, pool(comparisons), unlike=differ)


def _adjusted(found: Sequence[Verdict]) -> tuple[Verdict, ...]:
    adjusted = holm([verdict.comparison.p for verdict in found])
    level = LEVEL / max(1, sum(p >= LEVEL for p in adjusted))
    return tuple(replace(v, adjusted=p, level=level) for v, p in zip(found, adjusted, strict=True))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
