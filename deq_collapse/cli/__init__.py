"""The command line: assembles all commands; nothing else imports it."""

from deq_collapse.cli.program import main

__all__ = ["main"]
