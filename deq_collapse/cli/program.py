"""The command line: Lightning's ``fit``, ``validate``, ``test``, ``predict``, and the study commands."""

import argparse
import sys
from collections.abc import Sequence

from deq_collapse.config.commands import COMMANDS
from deq_collapse.errors import exit_code


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, or 2 after a user's mistake, told in one sentence on the standard error."""
    arguments = list(sys.argv[1:] if args is None else args)
    return exit_code(lambda: _dispatch(arguments))


def _dispatch(args: list[str]) -> int:
    # The heavy imports wait until the command is known, so that --help answers at once.
    command, rest = _parser().parse_known_args(args[:1])[0].command, args[1:]
    if command == "summary":
        from deq_collapse.cli.summary.command import summary_main

        return summary_main(rest)
    if command == "along":
        from deq_collapse.cli.along import along_main

        return along_main(rest)
    if command == "study":
        from deq_collapse.cli.study import study_main

        return study_main(rest)
    if command == "theory":
        from deq_collapse.cli.theory.command import theory_main

        return theory_main(rest)
    from deq_collapse.config.run import lightning_main

    lightning_main([command, *rest])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deq-collapse",
        description="What deep equilibrium models learn, seen through neural collapse.",
        epilog="deq-collapse COMMAND --help tells a command's options.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    commands.add_parser(
        "summary", help="print parameters, FLOPs and activations of models side by side", add_help=False
    )
    commands.add_parser(
        "along", help="draw how trained networks collapse along their computation", add_help=False
    )
    commands.add_parser("study", help="run a grid of runs, or rebuild its report", add_help=False)
    commands.add_parser("theory", help="what layer-peeled models predict of a collapse", add_help=False)
    return parser
