"""The command line: every command is assembled here, and nothing imports it."""

from deq_collapse.cli.program import main

__all__ = ["main"]
