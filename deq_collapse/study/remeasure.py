"""Measures runs along their computation from what they left, and draws them in one figure."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from deq_collapse.callbacks import along, checkpoint
from deq_collapse.config_files import read_yaml
from deq_collapse.errors import UserError
from deq_collapse.lightning_cli import CONFIG_FILE, CollapseCLI, lightning_main
from deq_collapse.study.along import Course, along_figure, along_scales, lines
from deq_collapse.study.figure_files import write_figure
from deq_collapse.study.records import setting_in_words


def draw(runs: Sequence[Path], modules: list[str] | None, figure: Path | None) -> Path:
    """Writes each run's ``along.csv`` anew from its last checkpoint, and the figure of all.

    Args:
        runs: their directories.
        modules: what is watched, see `callbacks.Along`; ``None`` for what a run's configuration says.
        figure: where the figure goes, without its suffix; ``None`` for the directory that holds all the runs.

    Returns:
        The figure's place, without its suffix.

    Raises:
        UserError: for a directory without a run or checkpoint, a module that cannot be watched, features
            without any collapse to measure, and a file that cannot be written.
    """
    for directory in runs:
        _check(directory)
    settings = lines([measure(load(directory, modules)) for directory in runs])
    if not settings:
        raise UserError("no run has a finite value of NC1, NC2 or NC3: there is nothing to draw.")
    place = figure or _beside(runs)
    write_figure(place, along_figure(settings, along_scales(settings)))
    return place


def _check(directory: Path) -> None:
    if not (directory / CONFIG_FILE).is_file():
        raise UserError(f"{directory} holds no run: there is no {CONFIG_FILE} in it.")
    if not (directory / checkpoint.FILE_NAME).is_file():
        raise UserError(
            f"{directory} holds a run without a checkpoint: there is no {checkpoint.FILE_NAME} in it."
        )


def _beside(runs: Sequence[Path]) -> Path:
    """A figure's place, without its suffix: in the directory that holds all the runs."""
    common = os.path.commonpath([run.absolute() for run in runs])
    return Path(os.path.relpath(common), "along")


class Loaded(CollapseCLI):
    """Builds what a run is made of, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Not even the subcommand."""


def load(directory: Path, modules: list[str] | None) -> CollapseCLI:
    """A run's data, model and trainer, with the weights of its last checkpoint, in one process.

    Raises:
        UserError: for a checkpoint that is cut short or of another architecture, and a module that cannot be
            watched.
    """
    config, path = directory / CONFIG_FILE, directory / checkpoint.FILE_NAME
    args = ["validate", "--config", str(config), "--ckpt_path", str(path)]
    args += [
        "--trainer.default_root_dir",
        str(directory),
        "--trainer.devices",
        "1",
        "--trainer.strategy",
        "auto",
    ]
    trained_on = (read_yaml(config).get("trainer") or {}).get("accelerator")
    if trained_on in ("gpu", "cuda") and not torch.cuda.is_available():
        args += ["--trainer.accelerator", "auto"]
    if modules is not None:
        args += ["--along.modules", json.dumps(modules)]
    cli = lightning_main(args, Loaded)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    cli.model = cli.trainer.precision_plugin.convert_module(cli.model)
    cli.model.on_load_checkpoint(weights)
    cli.model.load_state_dict(weights["state_dict"])
    return cli


def measure(cli: CollapseCLI) -> Course:
    """Writes the table beside the run.

    Raises:
        UserError: where features have no collapse to measure, and where the table cannot be written.
    """
    try:
        table = cli.along.measure(cli.trainer, cli.model, cli.datamodule)
    except ValueError as error:
        raise UserError(f"{cli.directory}: {error}") from error
    along.write(table, cli.directory)
    print(f"Along: {cli.directory / along.FILE_NAME}")
    axes = dict(cli.settings.axes)
    return Course(
        name=cli.settings.name,
        axes=axes,
        refinement=type(cli.model.network.refinement).__name__.lower(),
        setting=setting_in_words(axes) or cli.datamodule.source.name,
        table=table,
    )
