r"""Tables as LaTeX with booktabs: files to `\input` into a paper, and one document that contains them all."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from deq_collapse.analysis.measures import Measure
from deq_collapse.analysis.tables import Line, Table
from deq_collapse.analysis.verdicts import Share, Verdict, Verdicts
from deq_collapse.report.costs import CostTable
from deq_collapse.report.entries import baseline_text, effect_text, other_text
from deq_collapse.report.wording import NONE, percent, told_effect, told_p
from deq_collapse.runs.setting import short

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    # Characters in the words and numbers of a study.
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "–": "--",
    "—": "---",
    "’": "'",
    "“": "``",
    "”": "''",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': r"\textquotedbl{}",
    "K_A": "$K_A$",
}
POWER = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_TOKENS = re.compile("([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)|K_A|" + "|".join(re.escape(key) for key in SPECIAL if len(key) == 1))

HEAD = "% Needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs,graphicx}.\n"
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"
"""Shrinks a table that is wider than its column to the column's width."""


def escape(text: str) -> str:
    r"""Text as LaTeX: special characters are escaped, signs and powers become mathematics.

    >>> escape("50% of K_A=3, 1.2×10⁻⁵ & {a_b}")
    '50\\% of $K_A$=3, 1.2$\\times$10$^{-5}$ \\& \\{a\\_b\\}'
    """
    return _TOKENS.sub(
        lambda found: f"$^{{{found[1].translate(POWER)}}}$" if found[1] else SPECIAL[found[0]], text
    )


def values_table(table: Table) -> str:
    """Mean ± standard deviation, with the refinements side by side under every measure."""
    sides = _sides(table)
    parts = []
    for first, measures in _parts(table):
        heads = [m.heading for m in measures]
        rows = []
        for line in table.lines:
            entries = line.entries[first : first + len(measures)]
            texts = [text for e in entries for text in (baseline_text(e), other_text(e))[: len(sides)]]
            rows.append([_label(table, line), *(_cell(*text) for text in texts)])
        parts.append(_tabular(_heads(heads, sides), rows, _groups(table)))
    caption = f"{escape(table.family.title)}. Mean $\\pm$ standard deviation over seeds."
    return _float(table.family.name, caption, parts)


def differences_table(table: Table) -> str:
    """Paired effects with interval and adjusted p; bold if p is below 0.05."""
    parts = []
    for first, measures in _parts(table):
        heads = [_effect_title(m.title, m.kind) for m in measures]
        rows = []
        for line in table.lines:
            cells = [_label(table, line)]
            for entry in line.entries[first : first + len(measures)]:
                effect, interval = map(escape, effect_text(entry))
                effect = rf"\textbf{{{effect}}}" if entry.significant else effect
                cells += [f"{effect} {{\\scriptsize {interval}}}", escape(told_p(entry.adjusted))]
            rows.append(cells)
        parts.append(_tabular(_heads(heads, ["effect [95\\%]", "$p_\\mathrm{Holm}$"]), rows, _groups(table)))
    caption = (
        f"{escape(table.family.title)}: {_pair(table)}, paired by seed, with Student's 95\\% interval; $p$ of"
        f" the paired $t$ test after Holm's correction over the {table.tests} tests of this table."
    )
    return _float(f"{table.family.name}_differences", caption, parts)


def cost_latex(table: CostTable) -> str:
    """The cost table, a row per setting and refinement."""
    heads = [rf"\multicolumn{{{columns}}}{{c}}{{{escape(group)}}}" for group, columns in table.groups]
    last = list(itertools.accumulate((columns for _, columns in table.groups), initial=2))
    rules = "".join(rf"\cmidrule(lr){{{before + 1}-{end}}}" for before, end in itertools.pairwise(last))
    top = [_row(["", "", *heads]), rules, _row(["", "", *map(escape, table.titles)])]
    rows = []
    for block in table.blocks:
        for number, row in enumerate(block):
            texts = [_cell(*_split(text)) for text in row.texts] or ["missing"] + [""] * (
                len(table.titles) - 1
            )
            rows.append(
                [escape(row.setting.name) if number == 0 else "", escape(short(row.refinement)), *texts]
            )
    caption = "Cost. Mean $\\pm$ standard deviation over seeds."
    return _float("costs", caption, [_tabular(top, rows)])


def verdicts_table(found: Verdicts) -> str:
    """The pooled verdicts, and the share of balanced runs that collapsed."""
    top = [_row(["", "effect", "95\\% interval", "$n$", "$p_\\mathrm{Holm}$", "verdict"])]
    rows = [_share(share) for share in found.collapse if share.implicit]
    rows += [_verdict(verdict) for verdict in found.pooled]
    caption = (
        "The claims of Sun and Shi (2024). Effects are DEQ $-$ explicit, $\\times$ where they are factors,"
        " pooled over imbalanced settings within each seed."
    )
    return _float("verdicts", caption, [_tabular(top, rows, columns="p{0.42\\linewidth}rrrrl")])


def document(names: Iterable[str]) -> str:
    r"""A document that inputs every table, for viewing: `pdflatex all.tex`."""
    inputs = "\n".join(rf"\input{{{name}}}" for name in names)
    return (
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage[margin=2cm]{geometry}\n"
        f"\\usepackage{{booktabs,graphicx}}\n\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )


def _share(share: Share) -> list[str]:
    low, high = share.interval
    return [
        escape(_of(share.group, "Balanced runs of DEQ that collapsed")),
        f"{share.collapsed} of {share.n}",
        escape(f"[{percent(low)}, {percent(high)}]"),
        str(share.n),
        "",
        share.word,
    ]


def _verdict(verdict: Verdict) -> list[str]:
    effect, interval = told_effect(verdict.comparison, verdict.claim.measure)
    return [
        escape(_of(verdict.group, verdict.claim.sentence)),
        escape(effect),
        escape(interval or NONE),
        str(verdict.comparison.n),
        escape(told_p(verdict.adjusted)),
        verdict.word,
    ]


def _of(group: str, words: str) -> str:
    return f"{words} ({group})" if group else words


def _sides(table: Table) -> list[str]:
    if not table.others:
        return [escape(short(table.baseline))]
    other = short(table.others[0]) if len(table.others) == 1 else "other"
    return [escape(short(table.baseline)), escape(other)]


def _pair(table: Table) -> str:
    other = short(table.others[0]) if len(table.others) == 1 else "other"
    return f"{escape(other)} $-$ {escape(short(table.baseline))}, or their ratio"


def _effect_title(title: str, kind: str) -> str:
    return f"{title}, {'points' if kind == 'share' else 'ratio' if kind == 'factor' else 'difference'}"


def _label(table: Table, line: Line) -> str:
    name = line.setting.label
    return escape(f"{name}, {short(line.refinement)}" if len(table.others) > 1 else name)


def _split(text: str) -> tuple[str, str]:
    mean, sign, deviation = text.partition(" ± ")
    return mean, f"± {deviation}" if sign else ""


def _cell(main: str, small: str) -> str:
    return escape(main) + (rf" {{\scriptsize {escape(small)}}}" if small else "")


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _heads(titles: Sequence[str], under: Sequence[str]) -> list[str]:
    """Two lines of headings: titles, and under each of them the same columns."""
    n = len(under)
    heads = [rf"\multicolumn{{{n}}}{{c}}{{{escape(title)}}}" for title in titles]
    rules = "".join(rf"\cmidrule(lr){{{2 + i * n}-{1 + (i + 1) * n}}}" for i in range(len(titles)))
    return [_row(["", *heads]), rules, _row(["", *(list(under) * len(titles))])]


def _parts(table: Table) -> list[tuple[int, tuple[Measure, ...]]]:
    """Groups of at most three measures, which fit on a page, with the index of the first."""
    return [(i, table.measures[i : i + 3]) for i in range(0, len(table.measures), 3)]


def _groups(table: Table) -> list[str]:
    return [line.setting.heading for line in table.lines]


def _tabular(
    top: Sequence[str],
    rows: Sequence[Sequence[str]],
    groups: Sequence[str] = (),
    columns: str | None = None,
) -> str:
    """Rows under their headings; if rows belong to several groups, a separate line names each group."""
    width = len(rows[0])
    body: list[str] = []
    for i, row in enumerate(rows):
        if len(set(groups)) > 1 and (i == 0 or groups[i] != groups[i - 1]):
            body += [r"\addlinespace"] * (i > 0)
            body.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape(groups[i])}}}}} \\")
        body.append(_row(row))
    lines = [
        rf"{FIT}\begin{{tabular}}{{{columns or 'l' + 'r' * (width - 1)}}}",
        r"\toprule",
        *top,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
    ]
    return "\n".join(lines)


def _float(label: str, caption: str, parts: Sequence[str]) -> str:
    """The floating table; its parts follow each other vertically."""
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label.replace('_', '-')}}}",
        "\n\n\\medskip\n".join(parts),
        r"\end{table}",
    ]
    return HEAD + "\n".join(lines) + "\n"
