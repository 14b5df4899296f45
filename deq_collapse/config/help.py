"""Help that fits a terminal: for the classes that a key takes it lists ours, not every loaded module."""

import re
from argparse import Action
from typing import Any

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from deq_collapse.config.mistakes import classes_of

SHOWN = 12
"""Largest number of classes listed for a key whose own are not known."""
ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")
"""What a docstring links to, for the site: the last part is the name."""

NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
"""A negative number, as the value of an option."""


class ShortHelp(DefaultHelpFormatter):
    """jsonargparse's help with short lists of the classes that a key takes, and without a page's markup."""

    def _expand_help(self, action: Action) -> str:
        ours = classes_of(action.dest)

        def shorten(found: re.Match[str]) -> str:
            names = [name.strip() for name in found[1].split(",")]
            names.sort(key=lambda name: not name.startswith("deq_collapse."))
            listed = ours or (names if len(names) <= SHOWN else [*names[:SHOWN], "..."])
            return f"known subclasses: {', '.join(listed)}"

        return plain(re.sub(r"known subclasses: ([^)]*)", shorten, super()._expand_help(action)))

    def _format_text(self, text: str) -> str:
        return super()._format_text(plain(text))

    def start_section(self, heading: str | None) -> None:
        """A group of keys, headed by the first line of a docstring."""
        super().start_section(heading and plain(heading))


class Parser(LightningArgumentParser):
    """Lightning's parser with this help, and with the program's name where jsonargparse makes another one for
    the help of a class.
    """

    def __init__(
        self, *args: Any, prog: str = "deq-collapse", formatter_class: type = ShortHelp, **kwargs: Any
    ) -> None:
        super().__init__(*args, prog=prog, formatter_class=formatter_class, **kwargs)
        self._negative_number_matcher = NEGATIVE  # argparse takes -1e-3 for an option


def plain(text: str) -> str:
    """A docstring's text without its markup."""
    return ROLE.sub(r"\1", text).replace("``", "")
