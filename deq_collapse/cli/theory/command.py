"""``deq-collapse theory``: predictions of layer-peeled models, and how far networks are from them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from deq_collapse.errors import UserError
from deq_collapse.files import check_writable


def theory_main(args: Sequence[str]) -> int:
    """Runs a theory command; returns its exit code.

    Raises:
        UserError: for numbers that define no program, a directory without a run, a missing cvxpy, or a figure
            that cannot be written.
    """
    options = theory_parser().parse_args(args)
    if "directory" in options:
        check_writable(options.directory)
    elif options.figure is not None:
        check_writable(options.figure.parent)
    try:
        import cvxpy  # noqa: F401
    except ImportError as error:
        raise UserError(
            "deq-collapse theory needs cvxpy, which the extra `theory` installs: pip install"
            " 'deq-collapse[theory]'."
        ) from error
    from deq_collapse.cli.theory import output

    try:
        written = getattr(output, options.command)(options)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{str(error).rstrip('.')}.") from error
    for path in written:
        print(f"Written: {path}")
    return 0


def theory_parser() -> argparse.ArgumentParser:
    """The command's parser, with its options."""
    parser = argparse.ArgumentParser(
        prog="deq-collapse theory",
        description="Optima of layer-peeled and unconstrained-feature models; nothing is trained."
        " docs/theory.md states the programs.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    curve = commands.add_parser(
        "curve", help="minority cosine against the imbalance ratio, and where it is 1"
    )
    _step(curve)
    curve.add_argument("--largest", type=float, default=1e4, metavar="R", help="largest ratio (10000)")

    branches = commands.add_parser("branches", help="explicit against equilibrium under the same budgets")
    _step(branches)
    branches.add_argument("--largest", type=float, default=1e3, metavar="R", help="largest ratio (1000)")
    branches.add_argument(
        "--bound",
        choices=("operator", "energy"),
        default="operator",
        help="what bounds the map: its operator norm (convex; the default), or its energy, shared by A and U",
    )
    branches.add_argument("--map-energy", type=float, default=1.0, metavar="E_V", help="of the map (1)")
    branches.add_argument(
        "--radius", type=float, default=0.5, metavar="RHO", help="||A||_2 of the equilibrium at most (0.5)"
    )
    branches.add_argument(
        "--starts", type=int, default=16, help="of descent where the program is not convex (16)"
    )

    descent = commands.add_parser("descent", help="descent reaches each closed form")
    _directory(descent)

    phase = commands.add_parser("phase", help="phase diagrams over the ratio, the decay and the split")
    _step(phase, several=False)
    phase.set_defaults(weight_energy=None, feature_energy=None)  # those of the runs, if any
    phase.add_argument("--largest", type=float, default=1e3, metavar="R", help="largest ratio (1000)")
    phase.add_argument("--points", type=int, default=25, help="values of the ratio, and of the decay (25)")
    phase.add_argument(
        "--runs", type=Path, metavar="DIRECTORY", help="finished step-imbalanced runs to draw in"
    )

    compare = commands.add_parser(
        "compare",
        help="lay finished runs beside ETF, SELI, GOF and layer-peeled, also in their study's report",
    )
    compare.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="directory of a finished run, or of several"
    )
    compare.add_argument(
        "--figure",
        type=Path,
        metavar="PATH",
        help="where the figure of all runs goes, without its suffix (default: theory, beside or in the runs)",
    )
    return parser


def _step(parser: argparse.ArgumentParser, several: bool = True) -> None:
    parser.add_argument("--classes", type=int, default=10, metavar="K", help="number of classes (10)")
    if several:
        parser.add_argument(
            "--majority",
            type=int,
            nargs="+",
            default=[3, 5, 7],
            metavar="K_A",
            help="majority classes (3 5 7)",
        )
    else:
        parser.add_argument("--majority", type=int, default=5, metavar="K_A", help="majority classes (5)")
    parser.add_argument(
        "--weight-energy", type=float, default=1.0, metavar="E_W", help="of the classifier (1)"
    )
    parser.add_argument(
        "--feature-energy", type=float, default=5.0, metavar="E_H", help="of features, or inputs (5)"
    )
    _directory(parser)


def _directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--directory", type=Path, default=Path("outputs/theory"), help="where files go (outputs/theory)"
    )
