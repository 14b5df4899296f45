"""Configuration files: composing small ones, comparing two, and telling what is wrong with one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deq_collapse.errors import UserError

PARTS = "parts"


def expand_parts(args: Sequence[str]) -> list[str]:
    """Replaces each ``--config FILE`` whose file lists ``parts`` by those parts, in order, and the rest of
    the file.

    The paths are relative to the file; later files override earlier ones, and parts may have parts.

    A value that is YAML itself is passed on.

    Raises:
        UserError: for a file that is missing or is not YAML.
    """
    expanded: list[str] = []
    rest = iter(args)
    for arg in rest:
        flag, equals, value = arg.partition("=")
        if flag not in ("--config", "-c"):
            expanded.append(arg)
            continue
        value = value if equals else next(rest, "")
        for part in [value] if is_configuration(value) else _parts(Path(value)):
            expanded += ["--config", part]
    return expanded


def _parts(path: Path) -> Iterator[str]:
    content = read_yaml(path)
    for part in content.pop(PARTS, ()):
        yield from _parts(path.parent / part)
    if content:
        yield yaml.safe_dump(content, sort_keys=False)


def is_configuration(text: str) -> bool:
    """Whether it is YAML itself, and not the name of a file."""
    try:
        return isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        return False


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a file.

    Raises:
        UserError: where there is none.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"the configuration file {path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"the configuration file {path} is not valid YAML: {sentence(str(error))}") from error
    if not isinstance(content, dict):
        raise UserError(f"the configuration file {path} holds no keys.")
    return content


def first_difference(old: Any, new: Any, ignore: Sequence[str] = (), key: str = "") -> str:
    """The first key in which two configurations differ, with both values; empty where they agree."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            path = f"{key}.{name}" if key else str(name)
            if path not in ignore:
                found = first_difference(old.get(name), new.get(name), ignore, path)
                if found:
                    return found
        return ""
    return "" if str(old) == str(new) else f"{key} is {old!r} there and {new!r} here"


def sentence(message: str) -> str:
    """An error message of several lines as one line."""
    return re.sub(r"\s+", " ", message).strip()
