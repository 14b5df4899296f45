"""``deq-collapse cite``: BibTeX of the methods that a run used, and of this package."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from deq_collapse import __version__


def cite_main(args: Sequence[str]) -> int:
    """Prints BibTeX entries, each after a comment on what it is for; returns the exit code.

    Raises:
        UserError: for a directory without runs.
    """
    # Imports wait until they are needed, so that --help answers at once.
    options = cite_parser().parse_args(args)
    from deq_collapse.citations.collect import package_entry, references, uses

    entries, used = references(), uses(options.path)
    print(package_entry(__version__))
    for key, what in used.items():
        print(f"\n% for {', '.join(what)}" if what else "")
        print(entries[key])
    return 0


def cite_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        prog="deq-collapse cite",
        description="Prints BibTeX of the methods that a run used, as its saved configuration names them:"
        " losses, cells, solvers, gradients, data sets, measures; and of this package.",
    )
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="the directory of a run, or of a study; without it, this package and what it rests on",
    )
    return parser
