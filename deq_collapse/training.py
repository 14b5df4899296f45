"""A `Trainer` for Python that writes the files of a command-line run, without a configuration or the CLI."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar

from deq_collapse import callbacks


def run_callbacks(
    name: str, study: str | None = None, axes: Mapping[str, str] | None = None, progress: bool = True
) -> list[Callback]:
    """The callbacks that make a fit a run: history, costs, solver statistics, checkpoints and record.

    `run_trainer` has these and two more, which take options: `MeasurementSchedule` and `Along`.

    Args:
        name: of the run.
        study: the study it belongs to, or ``None``.
        axes: its place among others, label by axis, e.g. ``{"refinement": "equilibrium", "seed": "0"}``.
        progress: whether to show a line with the progress.
    """
    return [
        callbacks.Environment(),
        callbacks.Divergence(),
        callbacks.Costs(),
        callbacks.Diagnostics(),
        callbacks.History(),
        *([callbacks.RunProgress(name)] if progress else []),
        callbacks.PredictionWriter(),
        callbacks.Confusion(),
        callbacks.RunRecord(name, study, dict(axes or {})),
        callbacks.Ending(),
        callbacks.LastCheckpoint(),
    ]


def run_trainer(
    directory: str | Path,
    *,
    axes: Mapping[str, str] | None = None,
    schedule: callbacks.MeasurementSchedule | None = None,
    along: bool = True,
    **options: Any,
) -> Trainer:
    """A Lightning ``Trainer`` that writes a complete run, named after the directory, into that directory.

    ``deq-collapse study report`` and `read_study` take the directory that holds such runs. An interrupted run
    continues with ``trainer.fit(module, data, ckpt_path=directory / "last.ckpt")``.

    Args:
        directory: of the run's files; created if needed.
        axes: see `run_callbacks`.
        schedule: the epochs after which to measure; by default the first 20 and then fewer and fewer.
        along: whether to also measure the trained network along its computation.
        options: of Lightning's ``Trainer``, e.g. ``max_epochs`` and ``accelerator``; its ``callbacks`` are
            added to ours.

    Returns:
        The trainer, whose ``fit`` takes a `CollapseModule` and a `CollapseDataModule`.

    Raises:
        UserError: if the directory holds a finished run.
    """
    place = Path(directory)
    callbacks.keep_finished(place)
    given = options.pop("callbacks", None) or []
    own: Sequence[Callback] = given if isinstance(given, list | tuple) else [given]
    progress = options.get("enable_progress_bar", True) and not any(isinstance(c, ProgressBar) for c in own)
    ours = run_callbacks(place.name, axes=axes, progress=progress)
    measured = [schedule or callbacks.MeasurementSchedule(), *([callbacks.Along()] if along else [])]
    defaults = {"logger": False, "num_sanity_val_steps": 0, "enable_model_summary": False}
    plugins = options.pop("plugins", None) or []
    return Trainer(
        default_root_dir=place,
        callbacks=[*own, *measured, *ours],  # the record, which marks a run as finished, comes last
        plugins=[*(plugins if isinstance(plugins, list) else [plugins]), callbacks.AtomicCheckpointIO()],
        **(defaults | options),
    )
