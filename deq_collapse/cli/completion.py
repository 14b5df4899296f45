"""``deq-collapse completion``: a script to complete commands, options and configurations."""

import argparse
from collections.abc import Sequence
from typing import Any

from deq_collapse.cli.cite import cite_parser
from deq_collapse.cli.conf import folders
from deq_collapse.config.commands import COMMANDS as LIGHTNING
from deq_collapse.config.early import KEYS
from deq_collapse.config.files import SHIPPED
from deq_collapse.errors import UserError

CONFIGURATIONS = "_deq_collapse_configurations"
PREAMBLE = {
    "bash": """
{name}() {{
  {{
    compgen -W "{files}" -- "$1"
    compgen -f -X '!*.yaml' -- "$1"
    compgen -d -S / -- "$1"
  }} | sort -u
}}
""",
    "zsh": """
{name}() {{
  compadd -- {files}
  _files -g '*.yaml'
}}
""",
}
"""Completion of configurations: shipped ones, which are found from any directory, and local files."""


def completion_main(args: Sequence[str], commands: dict[str, str]) -> int:
    """Prints the script; returns the exit code.

    Args:
        args: of the command.
        commands: all commands and their descriptions.

    Raises:
        UserError: without shtab.
    """
    shell = completion_parser().parse_args(args).shell
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise UserError(
            "completion needs shtab, which the extra `completion` installs: pip install"
            " 'deq-collapse[completion]'."
        ) from error
    files = " ".join(
        f"conf/{path.relative_to(SHIPPED).as_posix()}" for path in sorted(SHIPPED.rglob("*.yaml"))
    )
    preamble = PREAMBLE[shell].format(name=CONFIGURATIONS, files=files)
    print(shtab.complete(whole_parser(commands), shell, preamble=preamble))
    return 0


def completion_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        prog="deq-collapse completion",
        description="Prints a script for a shell: put `source <(deq-collapse completion bash)` into"
        " ~/.bashrc, or write what `deq-collapse completion zsh` prints to a file _deq-collapse in the"
        " fpath.",
    )
    parser.add_argument("shell", choices=sorted(PREAMBLE))
    return parser


def whole_parser(commands: dict[str, str]) -> argparse.ArgumentParser:
    """An argparse parser of all commands with their options, not used for parsing."""
    from deq_collapse.cli.along import along_parser
    from deq_collapse.cli.conf import conf_parser, init_parser
    from deq_collapse.cli.study import study_parser
    from deq_collapse.cli.theory.command import theory_parser

    own = {
        "along": along_parser,
        "cite": cite_parser,
        "completion": completion_parser,
        "conf": conf_parser,
        "init": init_parser,
        "study": study_parser,
        "theory": theory_parser,
    }
    parser = argparse.ArgumentParser(prog="deq-collapse")
    parser.add_argument("--version", action="store_true", help="print the version")
    every = parser.add_subparsers(dest="command")
    for name, text in commands.items():
        if name in own:
            command = every.add_parser(name, help=text, parents=[own[name]()], add_help=False)
            _complete_files(command)
        else:
            _add_keys(every.add_parser(name, help=text), name in LIGHTNING)
    return parser


def _add_keys(parser: argparse.ArgumentParser, with_checkpoint: bool) -> None:
    """Adds the options of commands that take configurations."""
    _completes(parser.add_argument("--config", help="a configuration"))
    if not with_checkpoint:
        _completes(parser.add_argument("--branch", help="a configuration to lay beside others"))
    for key in KEYS.read_text(encoding="utf-8").split()[1:]:
        if key != "config" and (with_checkpoint or key != "ckpt_path"):
            parser.add_argument(f"--{key}")


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Completes positional arguments: study files, directories, and the folders of `conf`."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
        elif action.dest == "folder":
            action.choices = folders()
        elif action.dest in ("file", "study"):
            _completes(action)
        elif not action.option_strings and action.choices is None:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]


def _completes(action: Any) -> None:
    action.complete = dict.fromkeys(PREAMBLE, CONFIGURATIONS)
