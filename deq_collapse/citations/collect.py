"""The references of runs, from their saved files, as BibTeX."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from deq_collapse.citations.uses import ALWAYS, CLASSES, CORE, MEASURES, OPTIONS, STUDY
from deq_collapse.config.files import leaves, read_yaml
from deq_collapse.errors import UserError
from deq_collapse.runs.config import LOADER
from deq_collapse.runs.files import CONFIG, RESULT, SPLITS

OURS = "deq_collapse"
"""The key of this package's own entry."""


def references() -> dict[str, str]:
    """All entries of ``references.bib`` by key."""
    text = (Path(__file__).parent / "references.bib").read_text(encoding="utf-8")
    return {found[1]: found[0].strip() for found in re.finditer(r"@\w+\{(\w+),.*?\n\}", text, re.DOTALL)}


def package_entry(version: str) -> str:
    """The entry of this package."""
    fields = {
        "author": "{The deq\\_collapse authors}",
        "title": "{deq\\_collapse}: What Deep Equilibrium Models Learn, Seen through Neural Collapse",
        "note": f"Version {version}",
    }
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{OURS},\n{lines}\n}}"


def uses(path: Path | None) -> dict[str, list[str]]:
    """What to cite, by key, and for what.

    Args:
        path: the directory of a run, of a study, or of other runs; ``None`` for the package alone.

    Raises:
        UserError: for a directory without a saved configuration.
    """
    if path is None:
        return {key: [] for key in CORE}
    alone = (path / CONFIG).is_file()
    runs = [path] if alone else sorted(file.parent for file in path.glob(f"*/{CONFIG}"))
    if not runs:
        raise UserError(
            f"there is no {CONFIG} in {path} or a directory of it: give the directory of a run, or of a"
            " study."
        )
    found: dict[str, list[str]] = {key: [] for key in (*ALWAYS, *(() if alone else STUDY))}
    for run in runs:
        for key, what in _of_run(run):
            if what not in found.setdefault(key, []):
                found[key].append(what)
    return found


def _of_run(directory: Path) -> Iterator[tuple[str, str]]:
    """Key and use of everything named in a run's configuration and record."""
    for key, value in leaves(read_yaml(directory / CONFIG, LOADER)):
        yield from _of_value(key, value)
    for name in _measures(directory):
        for beginning, keys in MEASURES.items():
            if re.match(rf"{beginning}(_|$)", name):
                yield from ((key, f"the measure {name}") for key in keys)


def _of_value(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if key.endswith("class_path"):
        name = room_and_name(str(value))
        yield from ((cited, name) for cited in CLASSES.get(name, ()))
    if isinstance(value, list):  # e.g. callbacks
        for entry in value:
            if isinstance(entry, dict):
                for inner, leaf in leaves(entry):
                    yield from _of_value(inner, leaf)
    for (option, beginning), keys in OPTIONS.items():
        if f".{key}".endswith(f".{option}") and re.match(beginning, str(value)):
            yield from ((cited, f"{option} {value}") for cited in keys)


def room_and_name(path: str) -> str:
    """The name in `CLASSES` of an import path: for our classes, the subpackage and the class.

    >>> room_and_name("deq_collapse.models.cells.contractive.ConvCell")
    'models.ConvCell'
    """
    parts = path.split(".")
    return f"{parts[1]}.{parts[-1]}" if parts[0] == "deq_collapse" and len(parts) > 2 else path


def _measures(directory: Path) -> Iterable[str]:
    """Names of all measures of a finished run."""
    try:
        result: Mapping[str, Any] = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return dict.fromkeys(name for split in SPLITS for name in result.get(split) or {})
