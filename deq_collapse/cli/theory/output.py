"""What each theory command computes, prints and writes: a table, a figure, and a csv file."""

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from deq_collapse.analysis.beside import beside, dot
from deq_collapse.errors import UserError
from deq_collapse.figures.beside import distance_figure, grams_figure
from deq_collapse.figures.files import write_figure
from deq_collapse.figures.style import METADATA
from deq_collapse.figures.theory_approach import approach_figure
from deq_collapse.figures.theory_branches import branch_figure
from deq_collapse.figures.theory_curve import curve_figure
from deq_collapse.figures.theory_phase import phase_figure
from deq_collapse.files import write_atomically
from deq_collapse.report.page import write_report
from deq_collapse.runs.beside import GRAMS, TARGETS, Beside, write_beside
from deq_collapse.runs.files import RESULTS
from deq_collapse.runs.finished import read_run, runs_below
from deq_collapse.theory.approach import approach_table
from deq_collapse.theory.branch_table import ahead, branch_table, ratios_up_to
from deq_collapse.theory.branches import Budgets
from deq_collapse.theory.compare import compare as compare_run
from deq_collapse.theory.curve import curve_table
from deq_collapse.theory.phase import phase_table

LONGEST = 100
"""Largest number of characters from the names of runs in a file name."""

NAMES = {"loss": "loss", "minority_cosine": "minority cosine", "nc3": "NC3"} | {
    f"{value}_{part}": f"{name} of {part}"
    for value, name in (("nc2_etf", "NC2"), ("seli", "distance to SELI"))
    for part in ("means", "weights")
}


def curve(options: argparse.Namespace) -> list[str]:
    """Minority cosine against R."""
    _positive(options, "largest", 1)
    for majority in options.majority:
        _leaves_minorities(majority, options.classes)
    table = curve_table(
        options.classes, options.majority, options.weight_energy, options.feature_energy, options.largest
    )
    _print(table[table["program"] != "reduced"])
    if table["minority_cosine"].isna().any():
        print("nan: minority classifiers are 0 there, and have no angle to each other.")
    return _write(options.directory / "curve", table, curve_figure(table))


def branches(options: argparse.Namespace) -> list[str]:
    """Both branches over K_A and R."""
    _positive(options, "largest", 1)
    _positive(options, "starts", 1)
    budgets = Budgets(options.weight_energy, options.map_energy, options.feature_energy, options.radius)
    ratios = ratios_up_to(options.largest, 0.5 if options.bound == "operator" else 1.0)
    table = branch_table(options.classes, options.majority, ratios, budgets, options.bound, options.starts)
    _print(table)
    for name, (lower, known) in ahead(table).items():
        print(f"The equilibrium's {NAMES[name]} is lower at {lower} of {known} points.")
    return _write(options.directory / f"branches-{options.bound}", table, branch_figure(table))


def descent(options: argparse.Namespace) -> list[str]:
    """Distances to closed forms along descent."""
    table = approach_table()
    _print(table.groupby(["case", "part"], sort=False).last().reset_index())
    return _write(options.directory / "descent", table, approach_figure(table))


def phase(options: argparse.Namespace) -> list[str]:
    """Phase diagrams, optionally with trained networks."""
    _positive(options, "largest", 2)
    _positive(options, "points", 2)
    _leaves_minorities(options.majority, options.classes)
    runs = [] if options.runs is None else [read_run(path) for path in runs_below(options.runs)]
    dots = [dot(run, options.classes) for run in runs if run.majority and len(run.counts) == options.classes]
    if options.runs is not None and not dots:
        raise UserError(f"{options.runs} holds no run of {options.classes} classes in a step imbalance.")
    # Only the product of both matters; the default is the geometric mean of those of the networks.
    own = geometric_mean([dot.energies for dot in dots]) if dots else 5.0
    weight_energy = 1.0 if options.weight_energy is None else options.weight_energy
    feature_energy = own if options.feature_energy is None else options.feature_energy
    energies = weight_energy, feature_energy
    setting = (options.classes, options.majority, *energies)
    table = phase_table(*setting, options.largest, options.points)
    written = []
    if dots:
        _print(pd.DataFrame(dots))
        write_atomically(options.directory / "phase-runs.csv", pd.DataFrame(dots).to_csv(index=False))
        written.append(str(options.directory / "phase-runs.csv"))
    return [*written, *_write(options.directory / "phase", table, phase_figure(table, *setting, dots))]


def compare(options: argparse.Namespace) -> list[str]:
    """Runs compared with theory: tables, Gram matrices and a figure in each run, and a section in the report
    of their study.
    """
    directories = list(dict.fromkeys(run for given in options.runs for run in runs_below(given)))
    written, compared = [], []
    for directory in directories:
        run = read_run(directory)
        try:
            found = compare_run(run.weight, run.bias, run.means, run.counts, run.majority)
        except ValueError as error:
            raise UserError(f"{directory}: {str(error).rstrip('.')}.") from error
        compared.append(beside(run, found))
        write_beside(directory, compared[-1])
        write_figure(directory / "theory", grams_figure(compared[-1]))
        written.append(f"{directory / 'theory'}.{{csv,npz,{','.join(METADATA)}}}")
    _print_comparison(compared)
    table = pd.concat([each.table for each in compared])
    written += _write(options.figure or _beside(directories), table, distance_figure(compared))
    for study in dict.fromkeys(directory.parent for directory in directories):
        if (study / RESULTS).exists():
            written.append(str(write_report(study)))
    return written


def _beside(runs: Sequence[Path]) -> Path:
    """The path of the table of all runs without suffix: in the directory that holds them, under a name that
    distinguishes some of its runs from all.
    """
    common = Path(os.path.relpath(os.path.commonpath([run.absolute() for run in runs])))
    if len(runs) == 1:
        return common / "theory-compare"
    if len(runs_below(common)) == len(runs):
        return common / "theory"
    names = "+".join(run.name for run in runs)
    digest = hashlib.sha256(names.encode()).hexdigest()[:8]
    return common / f"theory-{names if len(names) <= LONGEST else f'{len(runs)}-runs-{digest}'}"


def _positive(options: argparse.Namespace, name: str, least: float) -> None:
    if not getattr(options, name) >= least:
        raise UserError(f"--{name} is {getattr(options, name):g}, but it is at least {least:g}.")


def _leaves_minorities(majority: int, classes: int) -> None:
    if not 0 < majority < classes - 1:
        raise UserError(
            f"--majority is {majority}, but it is at least 1 and leaves 2 minority classes or more of"
            f" {classes}."
        )


def _write(path: Path, table: pd.DataFrame, figure: Figure) -> list[str]:
    write_atomically(path.with_name(f"{path.name}.csv"), table.to_csv(index=False))
    write_figure(path, figure)
    return [f"{path}.{{csv,{','.join(METADATA)}}}"]


def _print(table: pd.DataFrame) -> None:
    shown = Table()
    for name in table.columns:
        numeric = pd.api.types.is_numeric_dtype(table[name])
        shown.add_column(str(name).replace("_", " "), justify="right" if numeric else "left")
    for row in table.itertuples(index=False):
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    _show(shown)


def _print_comparison(compared: Sequence[Beside]) -> None:
    table = Table(
        caption="Normalised distances of Gram matrices, 0 to 2; the nearest target of each run is marked."
    )
    for name in ("run", "target", *GRAMS):
        table.add_column(name, justify="left" if name in ("run", "target") else "right")
    for run in compared:
        distances = run.table.set_index("target")[list(GRAMS)]
        nearest = distances.sum(axis=1).round(6).idxmin()
        for target in TARGETS:
            values = (f"{value:.3f}" for value in distances.loc[target])
            table.add_row(
                run.name if target == TARGETS[0] else "", target + " *" * (target == nearest), *values
            )
        table.add_section()
    _show(table)
    for run in compared:
        print(f"{run.name}: {run.words}")


def _show(table: Table) -> None:
    console = Console(highlight=False)
    # A truncated number would be worse than a line that the terminal wraps.
    width = max(console.width, console.measure(table, options=console.options.update(max_width=1000)).maximum)
    Console(width=width, highlight=False).print(table)
