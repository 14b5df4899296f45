"""Configuration files: composing small ones, comparing two, and reporting errors in one."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from deq_collapse.errors import UserError

PARTS = "parts"
SUFFIXES = (".yaml", ".yml")
SHIPPED = Path(__file__).parent.parent / "conf"
"""The configurations shipped with the package."""


def found(path: Path) -> Path:
    """The file of a path or, if it does not exist, the shipped file of that name, e.g.
    ``conf/data/digits.yaml``.
    """
    shipped = SHIPPED / path.relative_to("conf") if path.is_relative_to("conf") else path
    return shipped if shipped.is_file() and not path.exists() else path


def expand_parts(args: Sequence[str]) -> list[str]:
    """Replaces each ``--config FILE`` whose file lists ``parts`` by these, in order, and the rest of the
    file.

    Paths are relative to the file, or names of shipped files (``conf/...``). Later files override earlier
    ones, and parts may have parts.

    A value that is YAML itself is passed on unchanged.

    Raises:
        UserError: for a file that is missing or is not YAML, whether it is named here or in another file.
    """
    expanded: list[str] = []
    rest = iter(args)
    for arg in rest:
        flag, equals, value = arg.partition("=")
        if flag not in ("--config", "-c"):
            expanded.append(arg)
            continue
        value = value if equals else next(rest, "")
        for part in [_once(value)] if is_configuration(value) else _parts(Path(value)):
            expanded += ["--config", part]
    expanded = _links_in_files(expanded)
    for arg in expanded:
        if any(suffix in arg for suffix in SUFFIXES):
            _check_files(yaml.safe_load(arg) if is_configuration(arg) else arg.rpartition("=")[2], Path())
    return expanded


def _links_in_files(arguments: Sequence[str]) -> list[str]:
    """Replaces each ``--KEY VALUE`` that links to another key by a configuration: the parser would look for
    that key beside the subcommands, not among the subcommand's.
    """
    replaced: list[str] = []
    rest = list(arguments)
    while rest:
        arg = rest.pop(0)
        key, equals, value = arg.removeprefix("--").partition("=")
        option = arg.startswith("--") and key != "config"
        if option and not equals and rest and "${" in rest[0]:
            value = rest.pop(0)
        if option and "${" in value:
            replaced += ["--config", dump_yaml(nested(key, value))]
        else:
            replaced.append(arg)
    return replaced


def _parts(path: Path) -> Iterator[str]:
    path = found(path)
    content = read_yaml(path, _Numbers)
    parts = content.pop(PARTS, [])
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"the configuration file {path}: {PARTS} is a list of files.")
    for part in parts:
        yield from _parts(beside(path, part))
    if content:
        yield dump_yaml(content)


def _check_files(value: Any, directory: Path) -> None:
    """Reads every file that a configuration names in place of content, e.g. ``model: model.yaml``, to find
    keys given twice, of which the parser would take the last.
    """
    if isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            _check_files(entry, directory)
    elif isinstance(value, str) and value.endswith(SUFFIXES):
        path = directory / value
        if path.is_file():
            _check_files(_load(path, _Once), path.parent)


def beside(path: Path, name: str) -> Path:
    """The file to which a name in another file refers: relative to it or, for ``conf/...``, see `found`."""
    there, named = path.parent / name, Path(name)
    return found(named) if named.is_relative_to("conf") and not there.exists() else there


def _once(text: str) -> str:
    try:
        yaml.load(text, _Once)
    except yaml.YAMLError as error:
        raise UserError(f"the configuration {text!r} is not valid YAML: {sentence(str(error))}") from error
    return text


def is_configuration(text: str) -> bool:
    """Whether a text is YAML itself, not the name of a file."""
    try:
        return isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        return False


class _Once(yaml.SafeLoader):
    """YAML in which a key given twice is an error, because the first block would be dropped silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.YAMLError(
                        f"the key {key.value} is given twice, again in line {key.start_mark.line + 1}"
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Numbers(_Once):
    """YAML that reads 1e-2 as a number, as the parser of configurations does, and '1e-2' as text."""


class _Quoting(yaml.SafeDumper):
    """Quotes text that the parser would read as a number, and writes a member of an `Enum` as its value."""


for _kind in (_Numbers, _Quoting):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9_]+)([eE][-+]?[0-9]+)?$"),
        list("-+0123456789."),
    )
_Quoting.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))


def dump_yaml(content: Any) -> str:
    """A configuration as text that reads back unchanged, with keys in the given order."""
    text: str = yaml.dump(content, Dumper=_Quoting, sort_keys=False, allow_unicode=True)
    return text


def read_yaml(path: Path, loader: type[yaml.SafeLoader] = _Once) -> dict[str, Any]:
    """Reads a YAML mapping from a file.

    Raises:
        UserError: if there is none.
    """
    content = _load(path, loader)
    if not isinstance(content, dict):
        raise UserError(f"the configuration file {path} holds no keys.")
    return content


def _load(path: Path, loader: type[yaml.SafeLoader]) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), loader)
    except OSError as error:
        raise UserError(f"the configuration file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the configuration file {path} is not text in UTF-8: save it as such.") from error
    except yaml.YAMLError as error:
        raise UserError(f"the configuration file {path} is not valid YAML: {sentence(str(error))}") from error


def options(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Keys and values of a command line with expanded parts, in order: a text, or the mapping of a
    configuration under the key ``config``.
    """
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        key, equals, value = argument.removeprefix("--").partition("=")
        if argument == "--config" and is_configuration(following):
            yield key, yaml.safe_load(following)
        elif argument.startswith("--"):
            yield key, value if equals else following


def links(arguments: Sequence[str]) -> dict[str, str]:
    """The links of a command line with expanded parts, by dotted key: values that follow another key, e.g.
    ``${seed_everything}``. Later values replace links.
    """
    found: dict[str, str] = {}
    for given, content in options(arguments):
        for key, value in leaves(content) if isinstance(content, dict) else [(given, None)]:
            found = {k: v for k, v in found.items() if k != key and not k.startswith(f"{key}.")}
            if isinstance(value, str) and "${" in value:
                found[key] = value
    return found


def linked(config: dict[str, Any], found: Mapping[str, str]) -> dict[str, Any]:
    """A resolved configuration in which links that still give its values are restored."""
    values = dict(leaves(config))
    return _replaced(
        config,
        {
            key: link
            for key, link in found.items()
            if key in values and _followed(link, values) == str(values[key])
        },
    )


def followed(config: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration, with its links replaced by the values that they follow."""
    values = dict(leaves(config))
    links = {key: value for key, value in values.items() if isinstance(value, str) and "${" in value}
    alone = {"${" + key + "}": value for key, value in values.items()}
    return _replaced(config, {k: alone.get(link, _followed(link, values)) for k, link in links.items()})


def _followed(link: str, values: Mapping[str, Any]) -> str:
    return re.sub(r"\$\{([\w.]+)\}", lambda name: str(values.get(name[1])), link)


def _replaced(value: dict[str, Any], kept: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    paths = {name: f"{key}.{name}".lstrip(".") for name in value}
    return {
        name: _replaced(entry, kept, paths[name]) if isinstance(entry, dict) else kept.get(paths[name], entry)
        for name, entry in value.items()
    }


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All values of nested mappings by dotted key; an empty mapping below a key is a value."""
    if isinstance(value, dict) and (value or not key):
        for name, entry in value.items():
            yield from leaves(entry, f"{key}.{name}".lstrip("."))
    else:
        yield key, value


def nested(key: str, value: Any) -> dict[str, Any]:
    """The mapping in which a dotted key has a value, as `leaves` takes it apart.

    >>> nested("model.tau", 1.0)
    {'model': {'tau': 1.0}}
    """
    for name in reversed(key.split(".")):
        value = {name: value}
    return dict(value)


def first_difference(old: Any, new: Any, ignore: Sequence[str] = (), key: str = "") -> str:
    """The first key in which two configurations differ, with both values; empty if they agree."""
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
    """A multi-line error message as one line."""
    return re.sub(r"\s+", " ", message).strip()
