"""``study.json``: the cells of a study and their identities, for readers without the study file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deq_collapse.errors import UserError
from deq_collapse.files import write_json
from deq_collapse.study.grid import Cell, StudyFile
from deq_collapse.study.progress import epochs_asked
from deq_collapse.study.state import is_locked

PLAN = "study.json"


@dataclass(frozen=True)
class Planned:
    """A cell of a checked study.

    Attributes:
        name: of the cell and its directory.
        axes: its label on each axis.
        hash: of what determines its numbers, see `identity.content_hash`.
        epochs: number of epochs to train.
    """

    name: str
    axes: dict[str, str]
    hash: str
    epochs: int


@dataclass(frozen=True)
class Plan:
    """The content of ``study.json``.

    Attributes:
        study: the study's name.
        command: the command that runs it.
        cells: in the order of the grid.
        contrasts: of the study file, see `runs.study.Contrast`.
    """

    study: str
    command: str
    cells: tuple[Planned, ...]
    contrasts: tuple[dict[str, str], ...] = ()


def write_plan(directory: Path, plan: Plan) -> None:
    """Writes ``study.json``.

    Raises:
        UserError: while another process runs the study as it was before the file changed.
    """
    old = {cell.name: cell.hash for cell in (read_plan(directory) or plan).cells}
    changed = [cell.name for cell in plan.cells if old.get(cell.name, cell.hash) != cell.hash]
    if changed and any(is_locked(directory / cell.name) for cell in plan.cells):
        raise UserError(
            f"another process runs the study in {directory} with another configuration of {changed[0]}: wait"
            " until it ends, or give the changed study another name."
        )
    write_json(directory / PLAN, asdict(plan))


def read_plan(directory: Path) -> Plan | None:
    """The content of ``study.json``, or ``None`` if there is none.

    Raises:
        UserError: if it is damaged.
    """
    path = directory / PLAN
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        cells = tuple(Planned(**cell) for cell in content["cells"])
        return Plan(**content | {"cells": cells, "contrasts": tuple(content.get("contrasts", ()))})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); the next `study run` writes it anew.") from error


def sketch(study: StudyFile, command: str) -> Plan:
    """The plan of a study that has none yet, or is older than plans, as far as its file and the
    configurations of its runs show it without being resolved.
    """
    epochs = {cell.name: epochs_asked(study.directory / cell.name) for cell in study.cells}
    most = max((asked for asked in epochs.values() if asked), default=1)
    cells = (Planned(cell.name, cell.axes, "", epochs[cell.name] or most) for cell in study.cells)
    return Plan(study.name, command, tuple(cells), study.contrasts)


def arguments(study: StudyFile, cell: Cell) -> list[str]:
    """The command line of a cell's run."""
    args = ["fit"]
    for config in cell.configs:
        args += ["--config", config]
    # As one word each, because a name may begin with a hyphen.
    args += [f"--name={cell.name}", f"--study={study.name}", "--axes", json.dumps(cell.axes)]
    return [*args, "--trainer.default_root_dir", str(study.directory / cell.name), "--ckpt_path", "last"]
