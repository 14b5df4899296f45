"""All keys of a fit's configuration, as known to the parser; run as a program, this file records them."""

from importlib.metadata import version
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from deq_collapse.config.command_line import CollapseCLI
from deq_collapse.config.early import KEYS
from deq_collapse.config.run import lightning_main


class _Known(Exception):  # noqa: N818 - it is what was asked for
    pass


class _Asked(CollapseCLI):
    """Builds the parser, and returns its keys instead of parsing."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        raise _Known(*sorted(self._parser("fit").get_defaults().keys()))


def parser_keys() -> list[str]:
    """The keys, sorted."""
    try:
        lightning_main(["fit"], _Asked)
    except _Known as known:
        # Below a key that takes a class are options, which depend on the class.
        return sorted({key.partition(".init_args")[0].removesuffix(".class_path") for key in known.args})
    raise AssertionError("the parser was not made")


if __name__ == "__main__":
    KEYS.write_text("\n".join([version("lightning"), *parser_keys()]) + "\n", encoding="utf-8")
