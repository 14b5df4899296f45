"""The place of runs without a study: two runs are seeds of one setting if their configurations differ only in
seeds; others are separate settings, named by what differs.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deq_collapse.config.files import followed, leaves, read_yaml
from deq_collapse.runs.config import class_label
from deq_collapse.runs.files import CONFIG, MANIFEST
from deq_collapse.runs.reading import read_json
from deq_collapse.runs.setting import refinement_of
from deq_collapse.study.identity import kept

SEEDS = ("seed", "seed_everything")
"""The last part of keys that are seeds."""
REFINEMENT, SOURCE = "model.refinement", "data.source"
CONTENT = f"{SOURCE}.content"
"""The beginning of the checksum of a run's data, whose place does not count."""
OWN = ("seed", "refinement", "imbalance", "dataset", "data")
"""Axes with a meaning in reports; no other key may have such a name."""


def placed(directories: Sequence[Path], records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records of runs, each with its own axes and those that distinguish it from the others.

    Args:
        directories: of the runs, each with its configuration; a run without one, e.g. from Python, is placed
            by its given axes or, without axes, is a separate setting.
        records: of the same runs.
    """
    keys = [_keys(directory) for directory in directories]
    known = [found for found in keys if found is not None]
    differing = _differing([{k: v for k, v in found.items() if _last(k) not in SEEDS} for found in known])
    if _told_by_source(known):
        differing = [key for key in differing if key != CONTENT]
    names = _names([key for key in differing if not key.startswith(REFINEMENT)])
    told = [key for key in differing if key.startswith(REFINEMENT)]
    return [
        dict(record)
        | {"axes": _given(record) if found is None else record["axes"] | _axes(record, found, names, told)}
        for record, found in zip(records, keys, strict=True)
    ]


def _given(record: Mapping[str, Any]) -> dict[str, str]:
    """The axes of a run without a configuration."""
    return dict(record["axes"]) or {"run": record["name"]}


def _axes(
    record: Mapping[str, Any], keys: Mapping[str, str], names: Mapping[str, str], told: Sequence[str]
) -> dict[str, str]:
    """Label by axis; a run has no label for a key that it lacks."""
    kind = class_label(keys.get(f"{REFINEMENT}.class_path", "")) or refinement_of({}, record["solver"])
    refinement = record["axes"].get("refinement", kind)
    alike = [key for key in told if key in keys and not key.endswith("class_path")]
    options = [f"{_last(key)}={keys[key]}" for key in alike]
    seeds = list(dict.fromkeys(value for key, value in keys.items() if _last(key) in SEEDS))
    return {
        **{name: keys[key] for key, name in names.items() if key in keys},
        "refinement": ", ".join([refinement, *options]),
        "seed": "/".join(seeds),
    }


def _keys(directory: Path) -> dict[str, str] | None:
    """Every value of a run's configuration, as text, by its dotted key, and `CONTENT`; ``None`` without a
    configuration.
    """
    if not (directory / CONFIG).exists():
        return None
    config = kept(followed(read_yaml(directory / CONFIG)))
    found = {key: _text(key, value) for key, value in leaves(config) if value != {}}
    if (directory / MANIFEST).exists():
        found[CONTENT] = str(read_json(directory / MANIFEST).get("sha256", ""))[:8]
    return found


def _told_by_source(runs: Sequence[Mapping[str, str]]) -> bool:
    """Whether runs on different data differ in the configuration of the data set, so that its content need
    not be named.
    """
    contents: dict[tuple[tuple[str, str], ...], set[str | None]] = {}
    for run in runs:
        source = tuple((key, run[key]) for key in sorted(run) if key.startswith(SOURCE) and key != CONTENT)
        contents.setdefault(source, set()).add(run.get(CONTENT))
    return all(len(found - {None}) <= 1 for found in contents.values())


def _text(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return class_label(text) if key.endswith("class_path") and not key.startswith(REFINEMENT) else text


def _differing(runs: Sequence[Mapping[str, str]]) -> list[str]:
    """Keys whose values differ among the runs or, for keys of a refinement, among the runs with its class."""
    every = dict.fromkeys(key for run in runs for key in run)
    return [key for key in every if len({run.get(key) for run in _having(runs, key)}) > 1]


def _having(runs: Sequence[Mapping[str, str]], key: str) -> list[Mapping[str, str]]:
    if not key.startswith(f"{REFINEMENT}.init_args"):
        return list(runs)
    kind = f"{REFINEMENT}.class_path"
    classes = {run.get(kind) for run in runs if key in run}
    return [run for run in runs if run.get(kind) in classes]


def _names(keys: Sequence[str]) -> dict[str, str]:
    """A short name of each key: its last part, or all its parts if another key has the same last part."""
    short = {key: _short(key) for key in keys}
    count = Counter(short.values())
    return {
        key: name if count[name] == 1 and (name not in OWN or name != _last(key)) else _parts(key)
        for key, name in short.items()
    }


def _short(key: str) -> str:
    parts = _parts(key).split(".")
    return "dataset" if parts == SOURCE.split(".") else parts[-1]


def _parts(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in ("init_args", "class_path"))


def _last(key: str) -> str:
    return key.rpartition(".")[2]
