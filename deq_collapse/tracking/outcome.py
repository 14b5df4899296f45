"""What a finished run logs to Weights & Biases: its final measures, its checkpoint, its manifest."""

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
    """Logs the content of a finished run's directory; nothing for an unfinished run.

    - ``final``, a table of the measures of all splits;
    - in the run's summary: parameters, FLOPs, times, terminal phase, solver;
    - the artifact ``checkpoint-<id>``: weights and configuration;
    - the artifact ``images-<digest>``: the images trained on. Runs on the same images share it.

    Args:
        run: the wandb run.
        directory: of the run.
        checkpoint: whether to log the checkpoint.
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
    """Makes all calls, even after one fails: for an artifact wandb asks the server, which may be unreachable.

    Raises:
        Exception: the first error, after all calls.
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
