"""What each theory command computes, prints and writes: a table, a figure, a csv file beside it."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically
from deq_collapse.study.figure_files import METADATA, write_figure
from deq_collapse.theory.approach import approach_figure, approach_table
from deq_collapse.theory.branch_table import ahead, branch_figure, branch_table, ratios_up_to
from deq_collapse.theory.branches import Budgets
from deq_collapse.theory.compare import Comparison
from deq_collapse.theory.compare import compare as compare_run
from deq_collapse.theory.compare_figure import beside_figure, comparison_table, distance_panel
from deq_collapse.theory.curve import curve_figure, curve_table
from deq_collapse.theory.peeled import layer_peeled
from deq_collapse.theory.phase import Dot, phase_figure, phase_table, smallest_angle
from deq_collapse.theory.runs import FinishedRun, read_run, runs_below

NAMES = {"loss": "loss", "minority_cosine": "minority cosine", "nc3": "NC3"} | {
    f"nc2_etf_{part}": f"NC2 of {part}" for part in ("means", "weights")
}


def curve(options: argparse.Namespace) -> list[str]:
    """Minority cosine against R."""
    _positive(options, "largest", 1)
    table = curve_table(
        options.classes, options.majority, options.weight_energy, options.feature_energy, options.largest
    )
    _print(table[table["program"] != "reduced"])
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
    """Phase diagrams, with trained networks in them."""
    _positive(options, "largest", 2)
    _positive(options, "points", 2)
    setting = (options.classes, options.majority, options.weight_energy, options.feature_energy)
    dots = [] if options.runs is None else _dots(runs_below(options.runs), options.classes)
    if options.runs is not None and not dots:
        raise UserError(f"{options.runs} holds no run of {options.classes} classes in a step imbalance.")
    table = phase_table(*setting, options.largest, options.points)
    if dots:
        _print(pd.DataFrame(dots))
    return _write(options.directory / "phase", table, phase_figure(table, *setting, dots))


def compare(options: argparse.Namespace) -> list[str]:
    """Runs beside the theory; leaves ``theory.csv`` and a figure in each."""
    written, compared = [], []
    for directory in options.runs:
        run = read_run(directory)
        try:
            found = compare_run(run.weight, run.bias, run.means, run.counts, run.majority)
        except ValueError as error:
            raise UserError(f"{directory}: {str(error).rstrip('.')}.") from error
        compared.append((run, found))
        written += _write(directory / "theory", comparison_table([(run, found)]), beside_figure(run, found))
    _print_comparison(compared)
    place = options.figure or _beside(options.runs)
    return [*written, *_write(place, comparison_table(compared), distance_panel(compared))]


def _dots(runs: Sequence[FinishedRun], num_classes: int) -> list[Dot]:
    """Trained networks of a step imbalance; their decay is the one whose optimum has their energies."""
    dots = []
    for run in runs:
        if not run.majority or len(run.counts) != num_classes:
            continue
        order = [*run.majority, *(c for c in range(num_classes) if c not in set(run.majority))]
        counts = [run.counts[c] for c in order]
        found = compare_run(
            run.weight[order], run.bias[order], run.means[order], counts, range(len(run.majority))
        )
        optimum = layer_peeled(counts, found.weight_energy, found.feature_energy, "samples", bias=True)
        dots.append(
            Dot(
                run.name,
                len(run.majority),
                max(counts) / min(counts),
                num_classes * optimum.price**2,
                found.minority_cosines["weights"][0],
                smallest_angle(found.measured.means, len(run.majority)),
            )
        )
    return dots


def _beside(runs: Sequence[Path]) -> Path:
    common = Path(os.path.relpath(os.path.commonpath([run.absolute() for run in runs])))
    return common / ("theory-compare" if len(runs) == 1 else "theory")


def _positive(options: argparse.Namespace, name: str, least: float) -> None:
    if not getattr(options, name) >= least:
        raise UserError(f"--{name} is {getattr(options, name):g}, but it is at least {least:g}.")


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


def _print_comparison(compared: Sequence[tuple[FinishedRun, Comparison]]) -> None:
    table = Table(
        caption="Normalised distances of Gram matrices, 0 to 2; the nearest target of each run is marked."
    )
    for name in ("run", "target", "weights", "means", "logits"):
        table.add_column(name, justify="left" if name in ("run", "target") else "right")
    for run, found in compared:
        for place, (target, distances) in enumerate(found.distances.items()):
            mark = " *" if target == found.nearest else ""
            table.add_row(
                run.name if place == 0 else "", target + mark, *(f"{value:.3f}" for value in distances)
            )
        table.add_section()
    _show(table)
    for run, found in compared:
        print(
            f"{run.name}: E_W {found.weight_energy:.3g}, E_H {found.feature_energy:.3g}; loss of its class"
            f" means {found.loss:.3g}, the least for these energies {found.optimum.loss:.3g}."
        )
        if run.majority:
            for part, (measured, ideal) in found.minority_cosines.items():
                print(f"  minority cosine of {part}: {measured:.3f}, at the optimum {ideal:.3f}.")


def _show(table: Table) -> None:
    console = Console(highlight=False)
    # A number cut off would be worse than a line that the terminal wraps.
    width = max(console.width, console.measure(table, options=console.options.update(max_width=1000)).maximum)
    Console(width=width, highlight=False).print(table)
