"""``deq-collapse along RUN``: measures trained networks along their computation and draws the result."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from deq_collapse.errors import UserError
from deq_collapse.files import check_writable


def along_main(args: Sequence[str]) -> int:
    """Runs ``deq-collapse along``; returns its exit code.

    Raises:
        UserError: see `draw`.
    """
    options = along_parser().parse_args(args)
    print(f"Figure: {draw(options.runs, options.modules, options.figure)}, as svg, png and pdf")
    return 0


def along_parser() -> argparse.ArgumentParser:
    """The command's parser, with its options."""
    parser = argparse.ArgumentParser(
        prog="deq-collapse along",
        description="Measures trained networks at H0 and after every evaluation of a block, from their last"
        " checkpoints; writes along.csv beside each and one figure of all.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the directory of a run")
    parser.add_argument(
        "--modules",
        nargs="+",
        metavar="NAME",
        help="modules of the network to watch instead of its blocks or iterates, as 'encoder.*'; they have"
        " a table and a figure of their own, along-modules",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="PATH",
        help="where the figure goes, without suffix; by default the directory that holds all the runs",
    )
    return parser


def draw(runs: Sequence[Path], modules: list[str] | None, figure: Path | None) -> Path:
    """Rewrites each run's ``along.csv`` from its last checkpoint, and the figure of all; if modules are
    given, writes ``along-modules.csv`` instead.

    Args:
        runs: their directories.
        modules: modules to watch, see `callbacks.Along`; ``None`` for those of a run's configuration.
        figure: path of the figure without suffix; ``None`` for the directory that holds all the runs.

    Returns:
        The path of the figure without suffix.

    Raises:
        UserError: for a directory without a run or checkpoint, a module that cannot be watched, features on
            which collapse cannot be measured, and a file that cannot be written.
    """
    # Heavy imports wait until there is something to draw, so that --help answers at once.
    from deq_collapse.figures.along import along_figure, along_scales, lines
    from deq_collapse.figures.files import write_figure
    from deq_collapse.study.remeasure import check_run, load, measure

    for directory in runs:
        check_run(directory)
    if figure is not None:
        check_writable(figure.parent)
    settings = lines([measure(load(directory, modules), modules) for directory in runs])
    if not settings:
        raise UserError("no run has a finite value of NC1, NC2 or NC3: there is nothing to draw.")
    place = figure or _beside(runs, "along" if modules is None else "along-modules")
    write_figure(place, along_figure(settings, along_scales(settings)))
    return place


def _beside(runs: Sequence[Path], name: str) -> Path:
    """The path of a figure without suffix, in the directory that holds all the runs."""
    common = os.path.commonpath([run.absolute() for run in runs])
    return Path(os.path.relpath(common), name)
