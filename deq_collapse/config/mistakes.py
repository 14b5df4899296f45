"""Errors in a configuration: turns jsonargparse's message into one sentence that names what is allowed."""

import inspect
import re
from collections.abc import Callable, Iterable
from pydoc import locate
from types import ModuleType

from omegaconf.errors import OmegaConfBaseException
from torch import nn

from deq_collapse import data, losses, models
from deq_collapse.config.commands import COMMANDS
from deq_collapse.config.files import sentence
from deq_collapse.config.unknown import unknown_key
from deq_collapse.errors import nearest

FACTS = ("image_shape", "shape", "num_features", "num_classes")
"""Arguments of parts of a network that describe the parts before them."""
WHOLES = (models.Cell, models.CollapseModule, models.Network)
"""Modules that are not parts of a network, or are parts of a part."""
LONGEST = 300
"""Largest number of characters of a message without a rule here."""


def explain(error: Exception, keys: Iterable[str]) -> str:
    """One sentence for an error of the parser.

    Args:
        error: from jsonargparse, or from OmegaConf of a link.
        keys: all keys of the subcommand, e.g. ``trainer.max_epochs``.
    """
    if isinstance(error, OmegaConfBaseException):
        return _wrong_link(error, keys)
    message = sentence(str(error))
    for pattern, rule in RULES.items():
        found = re.search(pattern, message)
        if found:
            return rule(found, sorted(set(keys)))
    return message if len(message) <= LONGEST else message[:LONGEST].rsplit(" ", 1)[0] + " ..."


def _wrong_link(error: OmegaConfBaseException, keys: Iterable[str]) -> str:
    """One sentence for a value such as ``${seed_everything}`` that cannot be followed."""
    key = str(error.full_key or "").partition(".")[2]
    reason = sentence(str(error).partition("full_key:")[0])
    if lacking := re.search(r"[Ii]nterpolation key '\.*(?P<key>[^']+)' not found", reason):
        return f"{key} follows {lacking['key']}, but {unknown_key(lacking['key'], sorted(set(keys)))}"
    return f"the link {key} cannot be followed, as ${{seed_everything}} can: {reason}."


def _unknown_key(found: re.Match[str], keys: list[str]) -> str:
    return unknown_key(found["key"].removeprefix("--").split("=")[0], keys)


def _unknown_class(found: re.Match[str], keys: list[str]) -> str:
    key, name = found["key"], found["name"].split(".")[-1]
    names = classes_of(key)
    hint = f"; {nearest(name, names)}" if names else ", and it is not an import path."
    return f"{key}: there is no {found['name']}{hint}" + (
        " A class of your own is given by its import path." if names else ""
    )


def classes_of(key: str) -> list[str]:
    """The names of our classes that a key such as ``data.source`` takes; empty if it takes others."""
    rooms: dict[str, tuple[ModuleType, Callable[[type], bool]]] = {
        "data.source": (data, lambda kind: issubclass(kind, data.Source)),
        "data.imbalance": (data, lambda kind: issubclass(kind, data.Imbalance)),
        "data.augment": (data, lambda kind: issubclass(kind, data.Augmentation)),
        "data.sampler": (data, lambda kind: issubclass(kind, data.Sampler)),
        "model.criterion": (losses, lambda kind: issubclass(kind, nn.Module)),
        "model.encoder": (models, lambda kind: _asks(kind, "image_shape")),
        "model.refinement": (models, lambda kind: _asks(kind, "shape")),
        "model.readout": (models, lambda kind: _asks(kind)),
        "model.classifier": (models, lambda kind: _asks(kind, "num_features", "num_classes")),
    }
    if key not in rooms:
        return []
    module, fits = rooms[key]
    kinds = {name: kind for name, kind in vars(module).items() if inspect.isclass(kind)}
    return [name for name, kind in kinds.items() if not inspect.isabstract(kind) and fits(kind)]


def _asks(kind: type, *first: str) -> bool:
    """Whether it is a module that the network makes from exactly these facts and its own options: the facts
    tell which part of a network it is.
    """
    if not issubclass(kind, nn.Module) or issubclass(kind, WHOLES):
        return False
    told = [name for name in inspect.signature(kind).parameters if name in FACTS]
    return told == list(first)


def _unknown_option(found: re.Match[str], keys: list[str]) -> str:
    kind = locate(found["path"])
    if found["path"] in BASES or inspect.isabstract(kind):
        return (
            f"{found['key']}.init_args.{found['name']} is given before anything names the class of"
            f" {found['key']}: give it after the file that does."
        )
    names = list(inspect.signature(kind).parameters) if callable(kind) else []
    name, owner = found["name"], found["path"].split(".")[-1]
    return f"{found['key']}: {owner} has no option {name}; {nearest(name, names)}"


def _wrong_choice(found: re.Match[str], keys: list[str]) -> str:
    return f"{found['key']} is {found['value']}, but it is one of {found['allowed'].replace(chr(39), '')}."


def _wrong_type(found: re.Match[str], keys: list[str]) -> str:
    return f"{found['key']} is {found['value']}, but it takes {_kinds(found)}."


def _wrong_option(found: re.Match[str], keys: list[str]) -> str:
    point = found["value"].replace(",", ".")
    hint = f": a number has a point, {point}" if re.fullmatch(r"-?\d+\.\d+", point) else ""
    return (
        f"{found['key']}.init_args.{found['inner']} is {found['value']}, but it takes {_kinds(found)}{hint}."
    )


def _no_module(found: re.Match[str], keys: list[str]) -> str:
    return f"{found['key']}: there is no module {found['module']}, installed or in this directory."


def _wrong_inner_type(found: re.Match[str], keys: list[str]) -> str:
    return f"{found['key']}: {found['inner']} is {found['value']}, but it takes {_kinds(found)}."


def _kinds(found: re.Match[str]) -> str:
    kinds = {"NoneType": "null", "str": "text", "float": "a number", "int": "a whole number"}
    kinds |= dict.fromkeys(("Sequence", "list", "tuple"), "a list") | {
        "dict": "a mapping",
        "bool": "true or false",
    }
    named = re.findall(r"\b(Sequence|list|tuple|dict)(?=\[)|<class '(?:\w+\.)*(\w+)'>", found["kinds"])
    literals = re.findall(r"Literal\[([^]]*)\]", found["kinds"])
    choices = dict.fromkeys(choice.strip(" '") for listed in literals for choice in listed.split(","))
    classes = dict.fromkeys(kinds.get(name, name) for pair in named for name in pair if name)
    words = " or ".join([*filter(None, [", ".join(choices)]), *classes])
    value = found["value"].strip()
    listed = "a list" in words and re.fullmatch(r"[\w.]+(,\s*[\w.]+)+", value)
    return f"{words}, as [{value}]" if listed else words


def _null(found: re.Match[str], keys: list[str]) -> str:
    return f"{found['key']} is null, but it takes a class; torch.nn.Identity is the one that does nothing."


def _missing(found: re.Match[str], keys: list[str]) -> str:
    names = re.sub(rf"\b({'|'.join(COMMANDS)})\.", "", found["names"])
    return f"the configuration lacks {names}; compose it by --config, from what `deq-collapse conf` lists."


def _missing_option(found: re.Match[str], keys: list[str]) -> str:
    first, owner = found["names"].split(", ")[0], found["path"].split(".")[-1]
    return f"{found['key']}: {owner} needs {found['names']}: set {found['key']}.init_args.{first}."


def _wrong_base(found: re.Match[str], keys: list[str]) -> str:
    base = found["base"]
    home = next((f"{room.__name__}." for room in (models, data, losses) if hasattr(room, base)), "")
    return f"{found['key']}: {found['inner']} is {found['path']}, but it takes a subclass of {home}{base}."


BASES = ("torch.optim.optimizer.Optimizer", "torch.optim.Optimizer", "torch.nn.modules.module.Module")
"""The classes that the parser assumes for options given before any class is named."""

RULES = {
    r"Parser key \"(?P<key>[^\"]+)\": .*class_path '(?P<path>[\w.]+)':"
    r" the following arguments are required: (?P<names>\w+(?:, \w+)*)": _missing_option,
    r"Parser key \"(?P<key>[^\"]+)\": .*the following arguments are required: (?P<names>\w+(?:, \w+)*)"
    r".*class_path='(?P<path>[\w.]+)'": _missing_option,
    r"Parser key \"(?P<key>[^\"]+)\": .*Parser key \"(?P<inner>\w+)\": .*Expected '(?P<path>[\w.]+)' to be a"
    r" subclass of <class '(?P<base>\w+)'>": _wrong_base,
    r"arguments are required: (?P<names>.*)": _missing,
    r"(?:does not accept option|[Uu]nrecognized arguments:) '?(?P<key>[^' ]+)": _unknown_key,
    r"No action for (?:key|destination) \"(?P<key>[^\"]+)\"": _unknown_key,
    r"Parser key \"(?P<key>[^\"]+)\": .*a subclass spec, but got None": _null,
    r"Parser key \"(?P<key>[^\"]+)\": .*class_path '(?P<path>[\w.]+)':"
    r" Option '(?P<name>\w+)' is not accepted": _unknown_option,
    r"Parser key \"(?P<key>[^\"]+)\": .*Option '(?P<name>\w+)' is not accepted"
    r".*class_path='(?P<path>[\w.]+)'": _unknown_option,
    r"Parser key \"(?P<key>[^\"]+)\": .*typing\.Literal\[(?P<allowed>[^]]*)\]\. Got value: (?P<value>\w+)": (
        _wrong_choice
    ),
    r"Parser key \"(?P<key>[^\"]+)\": .*Parser key \"(?P<inner>\w+)\": (?P<kinds>Expected a <class '\w+'>)\."
    r" Got value: (?P<value>.+?)(?:\. Got value| - Expected)": _wrong_inner_type,
    r"Parser key \"(?P<key>[^\"]+)\": .*class_path '[\w.]+': Parser key \"(?P<inner>\w+)\":"
    r" (?P<kinds>Expected a <class '\w+'>)\. Got value: (?P<value>.+)": _wrong_option,
    r"Parser key \"(?P<key>[^\"]+)\": Type .*Parser key \"(?P<inner>\w+)\": .*"
    r"(?P<kinds>Subtypes: \[.*?\]) Errors:.*Given value: (?P<value>\S+)\. Got value: Namespace": (
        _wrong_option
    ),
    r"Parser key \"(?P<key>[^\"]+)\": .*No module named '(?P<module>[^']+)'": _no_module,
    r"Parser key \"(?P<key>[^\"]+)\": .*has no attribute '\w+'\. Got value: (?P<name>[\w.]+)": _unknown_class,
    r"Parser key \"(?P<key>[^\"]+)\": .*class_path '(?P<name>[\w.]+)'": _unknown_class,
    r"Parser key \"(?P<key>[^\"]+)\": .*dot import path string: (?P<name>[\w.]+)": _unknown_class,
    r"Parser key \"(?P<key>[^\"]+)\": .*?(?P<kinds>Subtypes: .*?|Expected a <class .*?)"
    r"(?:Errors: .*)?Given value type: .* Given value: (?P<value>.*)": _wrong_type,
    r"Parser key \"(?P<key>[^\"]+)\": (?P<kinds>Expected a <class '\w+'>)\. Got value: (?P<value>.+)": (
        _wrong_type
    ),
}
"""The rule for each message of jsonargparse that a user may see; the first match is used."""
