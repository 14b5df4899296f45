"""A study's tables and figures as a separate wandb run beside the study's runs."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from deq_collapse.files import write_atomically
from deq_collapse.runs.files import RESULT
from deq_collapse.runs.reading import read_record
from deq_collapse.tracking.logger import ID_FILE, SETTINGS

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

REPORT, FIGURES, TABLES = "report", "figures", "runs"
"""The job type of that run, and the keys of its pictures and of its table of all runs."""

Mode = Literal["online", "offline"]
KEPT = ("name", "axes", "terminal_epoch", "nc1_fall", "seconds_per_step", "test", "validation", "train")
"""Keys of a run's record in the table of all runs."""


def upload_report(name: str, directory: Path, entity: str | None, project: str, mode: Mode) -> None:
    """Logs what `deq-collapse study report` wrote, and a table of all finished runs; the id stays the same.

    - ``runs``: one row per finished run, its axes and its final measures;
    - ``tables/*.csv`` of the study as tables, ``figures/*.png`` as images;
    - the artifact ``report-<study>``: the page, the tables, the figures, the records.

    Args:
        name: of the study.
        directory: of the study.
        entity: owner of the project; ``None`` for the login's own.
        project: project of its runs.
        mode: ``online`` or ``offline``.
    """
    import wandb

    file = directory / ID_FILE
    identity = file.read_text().strip() if file.exists() else secrets.token_hex(4)
    write_atomically(file, f"{identity}\n")
    with wandb.init(
        entity=entity,
        project=project,
        id=identity,
        resume="allow",
        name=f"{name}: report",
        group=name,
        job_type=REPORT,
        dir=directory,
        mode=mode,
        settings=SETTINGS | {"silent": mode == "offline"},
    ) as run:
        _log(run, name, directory)


def _log(run: Run, name: str, directory: Path) -> None:
    import wandb

    pictures = sorted(directory.glob("figures/*.png"))
    files = [path for path in sorted(directory.glob("tables/*.csv")) if path.read_text().strip()]
    tables = {f"tables/{path.stem}": pd.read_csv(path) for path in files}
    if (runs := runs_table(directory)) is not None:
        tables[TABLES] = runs
    content: dict[str, Any] = {key: wandb.Table(dataframe=table) for key, table in tables.items()}
    if pictures:
        content[FIGURES] = [wandb.Image(str(path), caption=path.stem) for path in pictures]
    if content:
        run.log(content)
    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", f"report-{name}", flags=re.ASCII), REPORT)
    for path in (directory / "report.html", directory / "results.json"):
        if path.exists():
            artifact.add_file(str(path), skip_cache=True)
    for folder in ("figures", "tables"):
        if (directory / folder).is_dir():
            artifact.add_dir(str(directory / folder), name=folder, skip_cache=True)
    if artifact.manifest.entries:
        run.log_artifact(artifact)


def runs_table(directory: Path) -> pd.DataFrame | None:
    """One row per finished run: its name, its axes, and every measure of a split as ``split/name``."""
    records = [read_record(path) for path in sorted(directory.glob(f"*/{RESULT}"))]
    if not records:
        return None
    return pd.json_normalize([{key: record.get(key) for key in KEPT} for record in records], sep="/")
