"""Options inherited from an earlier class: if a later file or option names another class, options given for
the first stay if both classes take them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from deq_collapse.config.files import options


@dataclass(frozen=True)
class Inherited:
    """An option that was given for one class and now belongs to another.

    Attributes:
        key: the key whose class changed, e.g. ``model.optimizer``.
        option: its name, e.g. ``weight_decay``.
        given_for, now: the names of the classes.
    """

    key: str
    option: str
    given_for: str
    now: str

    @property
    def place(self) -> str:
        """The key of the option."""
        return f"{self.key}.init_args.{self.option}"


def inherited(arguments: Sequence[str]) -> list[Inherited]:
    """The options of a command line with expanded parts that another class may have inherited.

    >>> first = '{model: {optimizer: {class_path: SGD, init_args: {lr: 0.1, momentum: 0.9}}}}'
    >>> last = '{model: {optimizer: {class_path: AdamW, init_args: {lr: 0.01}}}}'
    >>> [found.place for found in inherited(["--config", first, "--config", last])]
    ['model.optimizer.init_args.momentum']
    """
    classes: dict[str, str] = {}
    given: dict[tuple[str, str], str] = {}
    for key, option, value in _steps(arguments):
        if option is None:
            classes[key] = str(value).rpartition(".")[2]
        elif key in classes:
            given[key, option] = classes[key]
    return [
        Inherited(key, option, old, classes[key])
        for (key, option), old in given.items()
        if classes[key] != old
    ]


def _steps(arguments: Sequence[str]) -> Iterator[tuple[str, str | None, Any]]:
    """Yields in order a key and its class, or a key, an option and its value."""
    for key, value in options(arguments):
        if isinstance(value, dict):
            yield from _of_mapping("", value)
        else:
            yield from _of_option(key, value)


def _of_option(key: str, value: str) -> Iterator[tuple[str, str | None, Any]]:
    owner, _, option = key.rpartition(".")
    if option == "class_path":
        yield owner, None, value
    elif owner.endswith(".init_args"):
        yield owner.removesuffix(".init_args"), option, value
    else:
        yield key, None, value  # a class, or an option of no class, which is not used


def _of_mapping(key: str, content: dict[str, Any]) -> Iterator[tuple[str, str | None, Any]]:
    if "class_path" in content:
        yield key, None, content["class_path"]
    options = content.get("init_args")
    if isinstance(options, dict):
        yield from ((key, option, value) for option, value in options.items())
    for name, entry in content.items():
        if isinstance(entry, dict):
            yield from _of_mapping(f"{key}.{name}".lstrip("."), entry)
