"""Publishes a study on Weights & Biases: its saved dashboard, and its report as a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deq_collapse.errors import UserError
from deq_collapse.files import write_json
from deq_collapse.study.located import locate
from deq_collapse.tracking.upload import upload_report

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws

DASHBOARD = "wandb-dashboard.json"


def publish(path: Path, entity: str | None, project: str, offline: bool = False) -> str:
    """Saves the dashboard of a study and logs its report; a second call updates both in place.

    ``wandb-dashboard.json`` in the study's directory keeps the dashboard's address and content.

    Args:
        path: a study file, or a directory of runs.
        entity: owner of the project; ``None`` for the login's own.
        project: project of the runs.
        offline: send nothing: write the dashboard as a file and the report as an offline run.

    Returns:
        A description of what is where.

    Raises:
        UserError: if there is no study, wandb-workspaces is not installed, or wandb refuses.
    """
    study = locate(path)
    try:
        from deq_collapse.tracking import dashboard
    except ModuleNotFoundError as error:
        raise UserError("dashboards need wandb-workspaces: pip install 'deq-collapse[dashboard]'.") from error
    file = study.directory / DASHBOARD
    runs = study.runs.values()
    if offline:
        view = dashboard.workspace(study.name, runs, entity or "", project)
        write_json(file, _content(view))
        upload_report(study.name, study.directory, entity, project, "offline")
        return f"Dashboard: {file}\nReport: `wandb sync {study.directory}/wandb/offline-run-*` uploads it"
    try:
        view = dashboard.workspace(study.name, runs, entity or _own_entity(), project)
        _save(view, file)
        upload_report(study.name, study.directory, view.entity, project, "online")
        return f"Dashboard: {view.url}"
    except UserError:
        raise
    except Exception as error:  # wandb raises many kinds
        reason = str(error).partition("\n")[0]
        raise UserError(f"wandb does not take the dashboard: {reason}") from error


def _own_entity() -> str:
    import wandb

    entity = wandb.Api().default_entity
    if not entity:
        raise UserError("this login has no entity of its own: give --entity.")
    return str(entity)


def _save(view: ws.Workspace, file: Path) -> None:
    """Saves it as the previously saved view if that still exists, else as a new one."""
    old = json.loads(file.read_text()) if file.exists() else {}
    if old.get("url") and (old["entity"], old["project"]) == (view.entity, view.project):
        try:
            saved = type(view).from_url(old["url"])
        except ValueError:
            pass  # somebody has removed it
        else:
            view._internal_name, view._internal_id = saved._internal_name, saved._internal_id
    view.save()  # type: ignore[no-untyped-call]
    write_json(file, _content(view) | {"url": view.url})


def _content(view: ws.Workspace) -> dict[str, Any]:
    spec = view._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"entity": view.entity, "project": view.project, "name": view.name, "spec": spec}
