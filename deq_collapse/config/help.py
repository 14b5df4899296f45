"""Help that fits a terminal: for the classes that a key takes it lists ours, not every loaded module."""

import re
from argparse import Action

from jsonargparse import DefaultHelpFormatter

from deq_collapse.config.mistakes import classes_of

SHOWN = 12
"""Largest number of classes of other libraries listed."""


class ShortHelp(DefaultHelpFormatter):
    """jsonargparse's help with short lists of the classes that a key takes."""

    def _expand_help(self, action: Action) -> str:
        ours = classes_of(action.dest)

        def shorten(found: re.Match[str]) -> str:
            names = [name.strip() for name in found[1].split(",")]
            theirs = [name for name in names if not name.startswith("deq_collapse.")]
            listed = ours or (theirs if len(theirs) <= SHOWN else [*theirs[:SHOWN], "..."])
            return f"known subclasses: {', '.join(listed)}"

        return re.sub(r"known subclasses: ([^)]*)", shorten, super()._expand_help(action))
