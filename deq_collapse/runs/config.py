"""What the saved configuration of a run adds to its record: its imbalance, its criterion and its recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deq_collapse.runs.files import CONFIG

SIGNS = {"num_majority": "K_A", "ratio": "R"}
"""The symbols of the imbalance options that a label may name, e.g. ``step_ka3_r10``."""
PARTS = ("encoder", "refinement", "readout", "classifier", "criterion", "optimizer", "lr_scheduler")
USUAL = ("dampening", "eps", "last_epoch", "eta_min")
"""Options of torch that are of no interest here."""
APPROXIMATE = ("phantom", "jfb", "jacobianfree")
"""What the names of gradients begin with that are not exact."""
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""With libyaml, 2 ms per file instead of 16."""


@dataclass(frozen=True)
class Saved:
    """A saved configuration in words, as far as known.

    Attributes:
        imbalance: see `imbalance_words`.
        criterion: the training loss.
        recipe: see `recipe`.
        refined: see `refined`.
    """

    imbalance: dict[str, str] = field(default_factory=dict)
    criterion: str | None = None
    recipe: dict[str, str] = field(default_factory=dict, compare=False)
    refined: dict[str, str] = field(default_factory=dict, compare=False)


def read_saved(directory: Path) -> Saved:
    """Reads that of the run in a directory; empty if no configuration was saved, or it is damaged."""
    try:
        config = yaml.load((directory / CONFIG).read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return Saved()
    imbalance, criterion = (_class(config, *keys) for keys in (("data", "imbalance"), ("model", "criterion")))
    return Saved(
        imbalance_words(imbalance) if imbalance else {},
        criterion_words(criterion) if criterion else None,
        recipe(config),
        refined(config),
    )


def recipe(config: Any) -> dict[str, str]:
    """What was trained, and how, as in the configuration: classes with their options.

    >>> options = {"lr": 0.05, "weight_decay": 0.01, "foreach": None}
    >>> sgd = {"class_path": "torch.optim.SGD", "init_args": options}
    >>> recipe({"model": {"optimizer": sgd}})
    {'optimizer': 'SGD(lr=0.05, weight_decay=0.01)'}
    """
    model = config.get("model") if isinstance(config, dict) else None
    parts = {name: model.get(name) for name in PARTS} if isinstance(model, dict) else {}
    return {name.replace("lr_scheduler", "schedule"): _call(part) for name, part in parts.items() if part}


def refined(config: Any) -> dict[str, str]:
    """What an explicit refinement and an equilibrium can have in common: the block that they apply, the kind
    of their gradient, and the weight of the Jacobian in their loss. Empty without a refinement.

    >>> options = {"block": "OwnCell", "depth": 12, "gradient": None}
    >>> refined({"model": {"refinement": {"class_path": "Explicit", "init_args": options}}})
    {'block': 'OwnCell', 'gradient': 'exact', 'weight of the Jacobian term': '0'}
    """
    refinement = _class(config, "model", "refinement")
    if refinement is None:
        return {}
    options = refinement.get("init_args") or {}
    gradient = _call(options.get("gradient"))
    return {
        "block": _call(options.get("block", options.get("cell"))),
        "gradient": gradient if gradient.lower().startswith(APPROXIMATE) else "exact",
        "weight of the Jacobian term": f"{options.get('jacobian_weight') or 0:g}",
    }


def _call(value: Any) -> str:
    """A class of a configuration as a call, with the options that have a value."""
    if not isinstance(value, dict) or not isinstance(value.get("class_path"), str):
        return str(value)
    given = {
        key: option for key, option in (value.get("init_args") or {}).items() if option not in (None, False)
    }
    options = ", ".join(f"{key}={_call(option)}" for key, option in given.items() if key not in USUAL)
    name = str(value["class_path"]).rpartition(".")[2]
    return f"{name}({options})" if options else name


def imbalance_words(imbalance: Mapping[str, Any]) -> dict[str, str]:
    """The words of an imbalance, given as in a configuration, by the part of a label that stands for each.

    >>> imbalance_words({"class_path": "data.Step", "init_args": {"num_majority": 3, "ratio": 10.0}})
    {'step': 'step', 'ka3': 'K_A=3', 'r10': 'R=10'}
    """
    kind, options = class_label(imbalance["class_path"]), imbalance.get("init_args") or {}
    known = {sign: options.get(option) for option, sign in SIGNS.items()}
    return {kind: kind.replace("_", "-")} | {
        f"{sign.replace('_', '').lower()}{value:g}": f"{sign}={value:g}"
        for sign, value in known.items()
        if isinstance(value, int | float)
    }


def criterion_words(criterion: Mapping[str, Any]) -> str:
    """The words of a criterion, given as in a configuration.

    >>> criterion_words({"class_path": "losses.CrossEntropy", "init_args": {"weights": {"beta": 0.99}}})
    'cross entropy with class weights'
    >>> criterion_words({"class_path": "losses.LDAM"})
    'LDAM'
    """
    name = criterion["class_path"].rpartition(".")[2]
    words = name if name.isupper() else class_label(name).replace("_", " ")
    return f"{words} with class weights" if (criterion.get("init_args") or {}).get("weights") else words


def class_label(class_path: str) -> str:
    """The label of a class: ``deq_collapse.data.LongTailed`` is ``long_tailed``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_path.rpartition(".")[2]).lower()


def _class(config: Any, *keys: str) -> Mapping[str, Any] | None:
    """The class that a configuration gives for a key, or None."""
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config if isinstance(config, dict) and isinstance(config.get("class_path"), str) else None
