"""The one exception that stands for a user's mistake, and how a program tells it."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """A mistake in what the user asked for, told in one sentence: what was wrong, and what is allowed.

    The command line prints the sentence and exits with code 2, without a traceback.
    """


class RankLost(UserError):  # noqa: N818 - it is what happened to the run
    """Another process of the run is gone, or cannot be reached: the run is interrupted, not wrong."""


class Diverged(UserError):  # noqa: N818 - it is what happened to the run
    """Training led to a loss, or to features, that are not finite."""


def exit_code(program: Callable[[], object]) -> int:
    """Runs a program; gives its exit code: 2 after a user's mistake, told in one sentence on the standard
    error, else the number it returns, or 0.
    """
    try:
        code = program()
    except UserError as error:
        print(f"deq-collapse: {error}", file=sys.stderr)
        return 2
    return code if isinstance(code, int) else 0
