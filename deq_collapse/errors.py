"""The exception for a user's mistakes, and how a program reports it."""

import sys
from collections.abc import Callable, Collection
from difflib import get_close_matches


class UserError(ValueError):
    """A user's mistake, reported in one sentence: what was wrong, and what is allowed.

    The command line prints the sentence and exits with code 2, without a traceback.
    """


class RankLost(UserError):  # noqa: N818 - it is what happened to the run
    """Another process of the run is gone, or cannot be reached: the run is interrupted, not wrong."""


class Diverged(UserError):  # noqa: N818 - it is what happened to the run
    """Training led to a loss or features that are not finite."""


def nearest(name: str, names: Collection[str]) -> str:
    """``did you mean ...?`` with the nearest names, or all of them if none is near."""
    near = get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"allowed are {', '.join(sorted(names))}."


def exit_code(program: Callable[[], object]) -> int:
    """Runs a program; returns its exit code: 2 after a user's mistake, reported in one sentence on standard
    error, else the number that it returns, or 0.
    """
    try:
        code = program()
    except UserError as error:
        print(f"deq-collapse: {error}", file=sys.stderr)
        return 2
    return code if isinstance(code, int) else 0
