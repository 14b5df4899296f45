"""The command line: Lightning's ``fit``, ``validate``, ``test``, ``predict``, and the study commands."""

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from deq_collapse import __version__
from deq_collapse.config.commands import COMMANDS as LIGHTNING
from deq_collapse.errors import UserError, exit_code

COMMANDS = {
    **LIGHTNING,
    "study": "run a grid of runs, or rebuild its report",
    "summary": "print parameters, FLOPs and activations of models side by side",
    "along": "draw how trained networks collapse along their computation",
    "theory": "what layer-peeled models predict of a collapse",
    "conf": "list the configurations that come with the package",
    "cite": "print BibTeX of the methods that a run used",
    "init": "write a start of your own: an encoder, a run and a study",
    "completion": "print a script by which bash or zsh completes all this",
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, or 2 after a user's mistake, reported in one sentence on standard error."""
    arguments = list(sys.argv[1:] if args is None else args)
    return exit_code(lambda: _dispatch(arguments))


def _dispatch(args: list[str]) -> int:
    # Heavy imports wait until the command is known, so that --help answers at once.
    if args and not args[0].startswith("-") and args[0] not in COMMANDS:
        near = get_close_matches(args[0], COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f": it is one of {', '.join(COMMANDS)}."
        raise UserError(f"{args[0]} is no command{hint}")
    command, rest = _parser().parse_known_args(args[:1])[0].command, args[1:]
    if command in (*LIGHTNING, "summary"):
        from deq_collapse.config.early import check_early

        check_early(rest)
    if command == "summary":
        from deq_collapse.cli.summary.command import summary_main

        return summary_main(rest)
    if command == "along":
        from deq_collapse.cli.along import along_main

        return along_main(rest)
    if command == "conf":
        from deq_collapse.cli.conf import conf_main

        return conf_main(rest)
    if command == "cite":
        from deq_collapse.cli.cite import cite_main

        return cite_main(rest)
    if command == "completion":
        from deq_collapse.cli.completion import completion_main

        return completion_main(rest, COMMANDS)
    if command == "init":
        from deq_collapse.cli.conf import init_main

        return init_main(rest)
    if command == "study":
        from deq_collapse.cli.study import study_main

        return study_main(rest)
    if command == "theory":
        from deq_collapse.cli.theory.command import theory_main

        return theory_main(rest)
    from deq_collapse.cli.fit import fit_main

    return fit_main([command, *rest])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deq-collapse",
        description="What deep equilibrium models learn, seen through neural collapse.",
        epilog="deq-collapse COMMAND --help lists a command's options.",
    )
    parser.add_argument("--version", action="version", version=f"deq-collapse {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser
