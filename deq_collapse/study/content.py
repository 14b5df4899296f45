"""The content of a study file, and of the study file that it builds on."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from deq_collapse.config.files import SUFFIXES, beside, found, read_yaml
from deq_collapse.config.study_keys import BASE, KEYS
from deq_collapse.errors import UserError


def read_content(path: Path) -> dict[str, Any]:
    """The content of a study file with the keys of its ``base`` that it lacks, but for a name.

    Files that the base names relative to itself are given by their absolute paths.

    Raises:
        UserError: for a missing file, one that is not YAML, an unknown key, and a base that leads back to the
            file.
    """
    return _read(path, ())


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    content = read_yaml(path)
    check_keys(path, content, KEYS)
    if BASE not in content:
        return content
    name = content.pop(BASE)
    if not isinstance(name, str):
        raise UserError(f"{path}: {BASE} is another study file.")
    base = found(beside(path, name))
    if not base.is_file():
        raise UserError(f"{path} names {name}, but there is no file {base}.")
    chain = (*above, path.resolve())
    if base.resolve() in chain:
        raise UserError(f"{path}: its {BASE} {name} builds on this file itself.")
    inherited = _read(base, chain)
    inherited.pop("name", None)
    return {key: _placed(base, key, value) for key, value in inherited.items()} | content


def _placed(base: Path, key: str, value: Any) -> Any:
    """The value of a key that is inherited, with files by their absolute paths."""
    if key in ("config", "override"):
        return _files(base, value)
    if key == "axes" and isinstance(value, dict):
        return {
            axis: {label: _files(base, entry) for label, entry in labels.items()}
            if isinstance(labels, dict)
            else labels
            for axis, labels in value.items()
        }
    if key == "grids" and isinstance(value, list):
        return [
            {key: _placed(base, key, part) for key, part in grid.items()} if isinstance(grid, dict) else grid
            for grid in value
        ]
    return value


def _files(base: Path, entry: Any) -> Any:
    if isinstance(entry, list):
        return [_files(base, part) for part in entry]
    if isinstance(entry, str) and entry.endswith(SUFFIXES):
        return str(beside(base, entry).absolute())
    return entry


def check_keys(path: Path, content: dict[str, Any], allowed: tuple[str, ...]) -> None:
    """Checks the keys of a study file or of a grid in it.

    Raises:
        UserError: for one that is not allowed.
    """
    for key in content:
        if key not in allowed:
            near = get_close_matches(str(key), allowed, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            kind = "study file" if "name" in allowed else "grid"
            if key in ("data", "model", "trainer") and kind == "study file":
                raise UserError(
                    f"{path} is the configuration of one run, for it has the key {key}: deq-collapse fit"
                    f" --config {path}; a study lists it in its config."
                )
            raise UserError(f"{path}: unknown key {key}{hint}; a {kind} has {', '.join(allowed)}.")
