"""What a finished run leaves on Weights & Biases: its final measures, its checkpoint, its manifest."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deq_collapse.runs.files import CHECKPOINT, CONFIG, MANIFEST, RESULT, SPLITS

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

SUMMARY = ("terminal_epoch", "nc1_fall", "flops_per_image", "activation_bytes", "seconds_per_step", "solver")


def log_outcome(run: "Run", directory: Path, checkpoint: bool) -> None:
    """Logs what a finished run's directory holds; of an unfinished run nothing.

    - ``final``, a table of the measures of all splits;
    - in the run's summary: parameters, FLOPs, times, terminal phase, solver;
    - the artifact ``checkpoint-<id>``: weights and configuration;
    - the artifact ``images-<digest>``: which images were trained on. Runs on the same images share it.

    Args:
        run: where to.
        directory: the run's.
        checkpoint: whether to log that artifact.
    """
    import wandb

    if not (directory / RESULT).exists():
        return
    result = json.loads((directory / RESULT).read_text())
    splits = [split for split in SPLITS if split in result]
    measures = dict.fromkeys(name for split in splits for name in result[split])
    rows: list[Iterable[Any]] = [(name, *(result[split].get(name) for split in splits)) for name in measures]
    kept = {"name": result["name"], "axes": result["axes"], "class_counts": result["class_counts"]}
    files = [directory / name for name in (CHECKPOINT, CONFIG, RESULT)]
    manifest = directory / MANIFEST
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]
    of_images = {key: result[key] for key in ("dataset", "class_counts")}
    steps: list[Callable[[], object]] = [
        lambda: run.summary.update(
            {"parameters": result["parameters"]} | {key: result[key] for key in SUMMARY}
        ),
        lambda: run.log({"final": wandb.Table(columns=["measure", *splits], data=rows)}),
        lambda: _log(run, f"images-{digest}", "dataset", [manifest], of_images),
    ]
    if checkpoint:
        epochs = {"epochs": result["epochs"]}
        steps.append(lambda: _log(run, f"checkpoint-{run.id}", "model", files, kept | epochs))
    _each(steps)


def _each(steps: Iterable[Callable[[], object]]) -> None:
    """Does all, those after one that fails too: for an artifact wandb asks the server, which may be gone.

    Raises:
        Exception: the first of them, when all have been tried.
    """
    errors = []
    for step in steps:
        try:
            step()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _log(run: "Run", name: str, kind: str, files: list[Path], metadata: dict[str, Any]) -> None:
    import wandb

    artifact = wandb.Artifact(name, kind, metadata=metadata)
    for file in files:
        # A finished run is never overwritten, so wandb needs no copies.
        artifact.add_file(str(file), skip_cache=True, policy="immutable")
    run.log_artifact(artifact)
