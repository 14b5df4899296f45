"""A study file: configurations shared by all runs, and axes whose labels each add a configuration."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deq_collapse.config.files import SUFFIXES, beside, found, is_configuration, nested
from deq_collapse.config.study_keys import GRID_KEYS
from deq_collapse.errors import UserError
from deq_collapse.runs.setting import in_words, setting_in_words, short
from deq_collapse.study.content import check_keys, read_content


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        axes: its label on each axis.
        configs: arguments of ``--config``, files or YAML, in order.
    """

    axes: dict[str, str]
    configs: tuple[str, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """The joined labels, with numbers after the name of their axis; also the name of its directory."""
        return "-".join(f"{axis}{label}" if is_number(label) else label for axis, label in self.axes.items())


@dataclass(frozen=True)
class StudyFile:
    """A study as its file describes it.

    Attributes:
        name: of the study.
        directory: of its files: ``<output>/<name>``.
        cells: its runs, in the order of the grid.
        contrasts: pairs of labels of one axis that its report compares: `name`, `axis`, `before` and `after`.
    """

    name: str
    directory: Path
    cells: tuple[Cell, ...]
    contrasts: tuple[dict[str, str], ...] = ()


def read_study_file(path: Path, seeds: int | None = None) -> StudyFile:
    """Reads a study file; with a number of seeds, each grid has that many: its own, then the smallest others.

    Its keys are ``name``; ``base``, another study file, whose keys it has where it gives none itself;
    ``output`` (default ``outputs/studies``); ``config``, files or configurations shared by all runs;
    ``axes``, see below; ``override``, like ``config`` but applied after the axes; ``seeds``; and ``grids``,
    for a study that is not a single product: a list of grids with their own ``config``, ``axes``,
    ``override`` and ``seeds``. A grid has the study's configurations before its own, the study's axes after
    its own, and the study's seeds unless it has its own. Files are named relative to the study file, or as
    shipped ones (``conf/...``).

    An axis maps labels to files or configurations (``refinement: {explicit: a.yaml, equilibrium: b.yaml}``)
    or to lists of those (``{wide: [b.yaml, {model.encoder.init_args.width: 96}]}``), or it maps one dotted
    key to its values (``R: {data.imbalance.init_args.ratio: [10, 100]}``), which are then its labels. ``{}``
    adds nothing.

    Settings in the study file itself take precedence over those in its files, whatever their position: in a
    run, the files of ``config`` and of the axes come first, then configurations, then keys with values, then
    ``override``.

    ``contrasts`` names further comparisons in the report, each of two labels of one axis:
    ``contrasts: {bound: {family: [free, contraction]}}``.

    Raises:
        UserError: for a missing file, an unknown key, a grid without runs, or two runs with the same name.
    """
    path = found(path)
    content = read_content(path)
    if not isinstance(content.get("name"), str):
        raise UserError(f"{path}: a study needs a name.")
    if any(part.strip() in ("", ".", "..") for part in content["name"].split("/")):
        raise UserError(
            f"{path}: the study's name is {content['name']!r}, but it is that of a directory in output: not"
            " empty, and without '.' or '..' as a part."
        )
    output = content.get("output", "outputs/studies")
    if not isinstance(output, str):
        raise UserError(f"{path}: output is {output!r}, but it is the directory that holds studies.")
    grids = _list(path, content, "grids", [{}])
    if not grids or not all(isinstance(grid, dict) for grid in grids):
        raise UserError(f"{path}: grids is a list, and each grid has some of {', '.join(GRID_KEYS)}.")
    products = [list(_cells(path, content, grid, seeds)) for grid in grids]
    # Seed by seed, so that a study that is stopped early has compared everything with fewer seeds.
    rounds = itertools.zip_longest(*products, fillvalue=())
    cells = tuple(cell for seed in rounds for grid in seed for cell in grid)
    twice = [name for name, count in Counter(cell.name for cell in cells).items() if count > 1]
    if twice:
        raise UserError(
            f"{path}: {twice[0]} is the name of more than one run; give the grids an axis or a label that"
            " tells them apart."
        )
    _check_words(path, cells)
    directory = Path(output, content["name"]).expanduser()
    return StudyFile(content["name"], directory, cells, _contrasts(path, content.get("contrasts"), cells))


def _check_words(path: Path, cells: tuple[Cell, ...]) -> None:
    """Refuses settings and refinements that tables could not tell apart.

    Raises:
        UserError: naming two of them.
    """
    places: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        kept = {axis: label for axis, label in cell.axes.items() if axis != "seed"}
        words = setting_in_words(in_words(kept, {})), short(kept.get("refinement", ""))
        if places.setdefault(words, kept) != kept:
            two = " and ".join(", ".join(place.values()) for place in (places[words], kept))
            raise UserError(f"{path}: {two} would read alike in tables; give them other labels.")


def _contrasts(path: Path, contrasts: Any, cells: tuple[Cell, ...]) -> tuple[dict[str, str], ...]:
    """The contrasts of a study file, one record each.

    Raises:
        UserError: for a contrast that is not two labels of one axis of the study.
    """
    if not isinstance(contrasts, dict | None):
        raise UserError(f"{path}: contrasts maps each name to one axis with two of its labels.")
    found = []
    for name, entry in (contrasts or {}).items():
        axis, pair = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else ("", ())
        labels = dict.fromkeys(cell.axes[axis] for cell in cells if axis in cell.axes)
        pair = [str(label) for label in pair] if isinstance(pair, list) else []
        if len(set(pair)) != 2 or len(pair) != 2 or not set(pair) <= labels.keys():
            known = f"; the axis {axis} has {', '.join(labels)}" if labels else ""
            raise UserError(f"{path}: the contrast {name} is not one axis with two of its labels{known}.")
        found.append({"name": str(name), "axis": str(axis), "before": pair[0], "after": pair[1]})
    return tuple(found)


def _cells(
    path: Path, study: dict[str, Any], grid: dict[str, Any], number: int | None
) -> Iterator[tuple[Cell, ...]]:
    """For each seed, the product of the grid's own axes and then those of the study."""
    check_keys(path, grid, GRID_KEYS)
    before, after = (
        [_config(path, entry) for part in (study, grid) for entry in _list(path, part, key)]
        for key in ("config", "override")
    )
    axes = dict(_axes(path, grid.get("axes") or {}))
    axes |= {
        axis: labels for axis, labels in _axes(path, study.get("axes") or {}).items() if axis not in axes
    }
    seeds = _list(path, grid, "seeds", _list(path, study, "seeds", [0]))
    _check_axes(path, axes)
    _check_seeds(path, seeds)
    for seed in seeds if number is None else _as_many(seeds, number):
        last = (*after, yaml.safe_dump({"seed_everything": seed}))
        places = (dict(zip(axes, labels, strict=True)) for labels in itertools.product(*axes.values()))
        yield tuple(
            Cell(
                place | {"seed": str(seed)},
                (*_ordered(before, [axes[axis][label] for axis, label in place.items()]), *last),
            )
            for place in places
        )


def _check_axes(path: Path, axes: dict[str, dict[str, "_Label"]]) -> None:
    for axis, labels in axes.items():
        if axis == "seed":
            raise UserError(f"{path}: the axis seed is that of every study; its labels are the list seeds.")
        if not axis.strip():
            raise UserError(f"{path}: an axis has no name.")
        if not labels:
            raise UserError(f"{path}: the axis {axis} has no labels, which leaves no runs.")
        for label in labels:
            if not label.strip():
                raise UserError(
                    f"{path}: the axis {axis} has a label without a character; runs are called by labels."
                )
            if "/" in label:
                raise UserError(
                    f"{path}: the axis {axis} has the label {label}, but a label is part of the name of a"
                    " directory, which has no slash; a label of your own may stand for a configuration."
                )


def _check_seeds(path: Path, seeds: list[Any]) -> None:
    if not seeds:
        raise UserError(f"{path}: there are no seeds, which leaves no runs.")
    for place, seed in enumerate(seeds):
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise UserError(f"{path}: the seed {seed!r} is no whole number from 0.")
        if seed in seeds[:place]:
            raise UserError(f"{path}: the seed {seed} is given twice.")


def _ordered(shared: list[str], added: list["_Label"]) -> list[str]:
    """The configurations of a study, files first, because options in the study file itself modify the files
    and take precedence.
    """
    labels = [config for label in added if not label.key_with_value for config in label.configs]
    values = [config for label in added if label.key_with_value for config in label.configs]
    return [*sorted([*shared, *labels], key=is_configuration), *values]


def _as_many(seeds: list[Any], number: int) -> list[Any]:
    others = (seed for seed in itertools.count() if seed not in seeds)
    return [*seeds, *itertools.islice(others, max(0, number - len(seeds)))][:number]


@dataclass(frozen=True)
class _Label:
    """The configurations that a label of an axis adds, and whether it is the value of a key."""

    configs: tuple[str, ...]
    key_with_value: bool = False


def _axes(path: Path, axes: Any) -> dict[str, dict[str, _Label]]:
    if not isinstance(axes, dict) or not all(isinstance(labels, dict) for labels in axes.values()):
        raise UserError(
            f"{path}: axes maps each axis to its labels, and each label to a file or a configuration, or each"
            " axis to one key and its values."
        )
    return {str(axis): _labels(path, str(axis), entries) for axis, entries in axes.items()}


def _labels(path: Path, axis: str, entries: dict[Any, Any]) -> dict[str, _Label]:
    """The additions of each label of an axis."""
    if all(_is_added(entry) for entry in entries.values()):
        lists = {
            str(label): entry if isinstance(entry, list) else [entry] for label, entry in entries.items()
        }
        return {label: _Label(tuple(_config(path, part) for part in parts)) for label, parts in lists.items()}
    if len(entries) > 1:
        raise UserError(
            f"{path}: the axis {axis} has more than one key with values; it takes one, or labels of which"
            " each is a file, a configuration, or a list of those."
        )
    ((key, values),) = entries.items()
    for place, value in enumerate(values):
        if value in values[:place] or str(value) in map(str, values[:place]):
            raise UserError(f"{path}: the axis {axis} has the value {value} twice.")
    return {str(value): _Label((_config(path, {key: value}),), key_with_value=True) for value in values}


def _is_added(entry: Any) -> bool:
    """Whether an entry is what a label adds; otherwise it is the list of a key's values."""
    return not isinstance(entry, list) or (
        bool(entry)
        and all(
            isinstance(part, dict) or (isinstance(part, str) and part.endswith(SUFFIXES)) for part in entry
        )
    )


def _config(path: Path, entry: Any) -> str:
    """The argument of ``--config`` for an entry of a study file."""
    if isinstance(entry, dict):
        return yaml.safe_dump(_nested(path, entry), sort_keys=False)
    if not isinstance(entry, str):
        raise UserError(
            f"{path}: {entry!r} is neither a file nor a configuration; the values of a key are a list, as"
            f" [{entry}]."
        )
    file = beside(path, entry)
    if not file.is_file():
        raise UserError(f"{path} names {entry}, but there is no file {os.path.normpath(file)}.")
    return os.path.normpath(file)


def _nested(path: Path, entry: dict[Any, Any]) -> dict[str, Any]:
    """``{a.b: value}`` as ``{a: {b: value}}``; keys below one key, however written, stand side by side."""
    joined: dict[str, Any] = {}
    for key, value in entry.items():
        if "" in str(key).split("."):
            raise UserError(f"{path}: the key {key!r} has a part without a name.")
        _join(path, joined, nested(str(key), value), str(key))
    return joined


def _join(path: Path, place: dict[str, Any], more: dict[str, Any], key: str) -> None:
    """Adds what `key` gives to `place`; unlike OmegaConf's merge, no value takes another's place."""
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(place.get(name), dict):
            _join(path, place[name], value, key)
        elif name in place:
            raise UserError(f"{path}: {key} is given a value twice, or one above it is.")
        else:
            place[name] = value


def _list(path: Path, content: dict[str, Any], key: str, default: list[Any] | None = None) -> list[Any]:
    value = content.get(key, default or [])
    if not isinstance(value, list):
        raise UserError(f"{path}: {key} is a list.")
    return value


def is_number(label: str) -> bool:
    """Whether a label is a number, which means little without the name of its axis."""
    try:
        float(label)
    except ValueError:
        return False
    return True
