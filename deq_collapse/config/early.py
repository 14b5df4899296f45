"""Mistakes in a command line that can be found without torch, before its import, which takes seconds."""

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deq_collapse.config.files import expand_parts, found, is_configuration, leaves, options, read_yaml
from deq_collapse.config.study_keys import OF_STUDIES
from deq_collapse.config.unknown import unknown_key
from deq_collapse.errors import UserError, nearest

KEYS = Path(__file__).parent / "keys.txt"
"""All keys of a fit, after the version of Lightning whose Trainer has them; `python -m
deq_collapse.config.keys` rewrites it, and a test compares it with the parser.
"""
FREE = ("branch", "config", "print_config", "print_shtab", "help")
"""Options that are not keys of a configuration; ``branch`` belongs to ``summary``."""
CLASS = {
    *("class_path", "encoder", "refinement", "readout", "classifier", "criterion", "cell", "block"),
    *("optimizer", "lr_scheduler", "source", "imbalance", "augment", "sampler"),
}
"""Last parts of keys whose value may be an import path."""
IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(?<!\.yaml)(?<!\.yml)")
"""Import paths; a configuration, in a file or as text, may also be given there."""


def check_early(args: Sequence[str]) -> None:
    """Checks a command line and its files; what passes may still be wrong.

    Args:
        args: after the subcommand.

    Raises:
        UserError: for a file without ``--config``, a file that is missing, is not YAML or is a study file, an
            unknown key, and a user's module or class that does not exist.
    """
    _check_alone(args)
    for file in _files(args):
        if OF_STUDIES & read_yaml(found(file)).keys():
            raise UserError(f"{file} is a study file, of several runs: deq-collapse study run {file}.")
    for key, value in _values(expand_parts(args)):
        _check_key(key)
        if isinstance(value, str) and key.rpartition(".")[2] in CLASS and IMPORT_PATH.fullmatch(value):
            _check_import(key, value)


@cache
def known_keys() -> frozenset[str]:
    """All keys of a fit; none for another version of Lightning, whose Trainer may have others."""
    lightning, *keys = KEYS.read_text(encoding="utf-8").split()
    return frozenset(keys) if version("lightning") == lightning else frozenset()


def _check_alone(args: Sequence[str]) -> None:
    """Refuses an argument that is neither an option nor the value after one."""
    valued = True
    for before, arg in zip(["", *args], args, strict=False):
        option = arg.startswith("-") and not arg[1:2].isdigit()
        if not option and valued:
            if arg.endswith((".yaml", ".yml")):
                raise UserError(f"{arg} follows no --config: give every file its own, --config {arg}.")
            raise UserError(f"{arg} is the value of no option: write --KEY {arg}." + _spaces(before))
        valued = not option or "=" in arg


def _spaces(before: str) -> str:
    return f" Where it belongs to {before}, quote both as one." if before else ""


def _files(args: Sequence[str]) -> Iterator[Path]:
    """The files named by ``--config``."""
    for before, arg in zip(["", *args], args, strict=False):
        flag, _, value = arg.partition("=")
        name = value if flag in ("--config", "-c") and value else arg if before in ("--config", "-c") else ""
        if name and not is_configuration(name):
            yield Path(name)


def _values(args: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Keys and values of a command line with expanded parts; what is not YAML is left to the parser."""
    for key, value in options(args):
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield key, value


def _check_key(key: str) -> None:
    key, keys = key.removesuffix("+"), known_keys()
    parts = key.split(".")
    whole = [".".join(parts[: n + 1]) for n in range(len(parts))]
    if not keys or key in FREE or parts[-1] == "help" or any(part in keys for part in whole):
        return
    if not any(known.startswith(f"{key}.") for known in keys):
        raise UserError(unknown_key(key, keys))


def _check_import(key: str, path: str) -> None:
    """Checks that an import path exists, as far as the files of the working directory show."""
    module, _, name = path.rpartition(".")
    top, file = module.partition(".")[0], Path(*module.split(".")).with_suffix(".py")
    if file.is_file():
        names = _names(file)
        if names is not None and name not in names:
            raise UserError(f"{key}: {file} has no {name}; {nearest(name, names)}")
    elif not (Path(top).is_dir() or Path(f"{top}.py").is_file() or _installed(top)):
        own = [path.stem for path in Path().glob("*.py")]
        hint = nearest(top, own) if own else "there is no file of Python here."
        raise UserError(f"{key}: there is no module {top}, installed or in this directory; {hint}")


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _names(file: Path) -> list[str] | None:
    """The names that a file defines or imports; ``None`` if they are known only when it runs.

    Raises:
        UserError: if it is not Python.
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        where = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(f"{file} is not valid Python{where}: {error.args[0]}.") from error
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif not isinstance(node, ast.Expr):
            return None
    return None if "*" in names or "__getattr__" in names else names
