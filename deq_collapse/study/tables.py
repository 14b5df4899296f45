"""The tables of a study: one row per setting and refinement, mean ± standard deviation over its seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from deq_collapse.study.records import Run, Solver, Study
from deq_collapse.study.wording import NONE, magnitude, nc1_first, number, over_seeds, percent, whole

Form = Callable[[float], str]


@dataclass(frozen=True)
class Column:
    """What the runs of one row say, as text, under a title and the heading of a group of columns."""

    group: str
    title: str
    text: Callable[[Sequence[Run]], str]


@dataclass(frozen=True)
class Row:
    """The runs of one setting and refinement, and their texts."""

    setting: str
    refinement: str
    runs: list[Run]
    texts: list[str]


@dataclass(frozen=True)
class Table:
    """Group headings with the number of columns they span, titles, and the rows of each setting."""

    groups: list[tuple[str, int]]
    titles: list[str]
    blocks: list[list[Row]]


def main_table(study: Study) -> Table:
    """Accuracies, collapse on both splits, minority cosines and the terminal phase."""
    test, train = "Test, last epoch", "Train, last epoch"
    return _table(
        study,
        [
            _metric("Test accuracy", "overall", "test", "accuracy", percent),
            _metric("Test accuracy", "majority", "test", "accuracy_majority", percent),
            _metric("Test accuracy", "minority", "test", "accuracy_minority", percent),
            *(
                _metric("Test accuracy", g, "test", f"accuracy_{g}", percent)
                for g in ("many", "medium", "few")
            ),
            _each("NC1 on train", "first", nc1_first),
            _metric("NC1 on train", "last", "train", "nc1"),
            _each("NC1 on train", "fall ×", lambda run: run.nc1_fall),
            _metric(train, "NC2", "train", "nc2_etf_means"),
            _metric(train, "NC3", "train", "nc3"),
            _metric(train, "NC4", "train", "nc4", percent),
            _metric(test, "NC1", "test", "nc1"),
            _metric(test, "NC2", "test", "nc2_etf_means"),
            _metric(test, "NC3", "test", "nc3"),
            _metric(test, "NC4", "test", "nc4", percent),
            _metric("Minority cosines", "rows", "train", "minority_cos_weights_mean"),
            _metric("Minority cosines", "means", "train", "minority_cos_means_mean"),
            Column("Terminal", "epoch", _terminal),
        ],
    )


def cost_table(study: Study) -> Table:
    """Parameters by part and against the explicit partner, work and memory, and how the solver did."""
    partners = {setting: cell["explicit"][0] for setting, cell in study.cells.items() if "explicit" in cell}

    def against(runs: Sequence[Run]) -> str:
        partner = partners.get(runs[0].setting)
        if partner is None or runs[0].refinement == "explicit":
            return NONE
        share = runs[0].parameters["total"] / partner.parameters["total"] - 1
        return f"{100 * share:+.2f}%".replace("-", "−")

    return _table(
        study,
        [
            *(_part(name) for name in ("encoder", "refinement", "classifier", "total")),
            Column("Parameters", "vs explicit", against),
            _each("Work", "FLOPs / image", lambda run: run.flops_per_image, magnitude),
            _each("Work", "s / step", lambda run: run.seconds_per_step),
            _each("Activations", "MiB", lambda run: run.activation_bytes and run.activation_bytes / 2**20),
            Column("Solver", "gradient", _gradients),
            _solver("forward", lambda solver: solver.forward_evaluations),
            _solver("backward", lambda solver: solver.backward_evaluations),
            _solver("residual", lambda solver: solver.residual),
            _solver("missed", lambda solver: solver.unconverged, percent),
            _solver("missed backward", lambda solver: solver.backward_unconverged, percent),
            _metric("Solver", "spectral radius", "train", "spectral_radius"),
        ],
    )


def every_metric(cell: dict[str, list[Run]]) -> list[tuple[str, list[str]]]:
    """Each metric of one setting: its values on train and test of each refinement in turn."""
    runs = [run for seeds in cell.values() for run in seeds]
    names = dict.fromkeys(name for run in runs for values in (run.train, run.test) for name in values)
    columns = [(seeds, split) for seeds in cell.values() for split in ("train", "test")]
    return [
        (name, [over_seeds([getattr(run, split).get(name) for run in seeds]) for seeds, split in columns])
        for name in names
    ]


def _table(study: Study, columns: list[Column]) -> Table:
    """Columns that say nothing in any row are left out."""
    rows = [(setting, name, runs) for setting, cell in study.cells.items() for name, runs in cell.items()]
    texts = [[column.text(runs) for _, _, runs in rows] for column in columns]
    kept = [i for i, column in enumerate(texts) if any(text != NONE for text in column)]
    groups = [(group, len(list(members))) for group, members in groupby(columns[i].group for i in kept)]
    lines = [Row(*row, [texts[i][line] for i in kept]) for line, row in enumerate(rows)]
    blocks = [list(block) for _, block in groupby(lines, key=lambda row: row.setting)]
    return Table(groups, [columns[i].title for i in kept], blocks)


def _each(group: str, title: str, value: Callable[[Run], float | None], form: Form = number) -> Column:
    return Column(group, title, lambda runs: over_seeds([value(run) for run in runs], form))


def _metric(group: str, title: str, split: str, name: str, form: Form = number) -> Column:
    return _each(group, title, lambda run: getattr(run, split).get(name), form)


def _part(name: str) -> Column:
    return _each("Parameters", name, lambda run: run.parameters[name], whole)


def _solver(title: str, value: Callable[[Solver], float | None], form: Form = number) -> Column:
    return _each("Solver", title, lambda run: value(run.solver) if run.solver else None, form)


def _gradients(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(run.solver.gradient for run in runs if run.solver)) or NONE


def _terminal(runs: Sequence[Run]) -> str:
    reached = [run.terminal_epoch for run in runs if run.terminal_epoch is not None]
    missed = len(runs) - len(reached)
    if not reached:
        return "never"
    return over_seeds(reached, lambda epoch: f"{epoch:.3g}") + (f" ({missed} never)" if missed else "")
