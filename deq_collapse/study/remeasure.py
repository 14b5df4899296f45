"""``deq-collapse along RUN [RUN ...]``: measures runs along their computation, and draws them together."""

import argparse
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
from deq_collapse.study.figure_files import METADATA, write_figure
from deq_collapse.study.records import setting_in_words


def along_main(args: Sequence[str]) -> int:
    """Measures every run from its last checkpoint, and draws all of them; returns the exit code.

    Raises:
        UserError: for a directory without a run or checkpoint, a module that cannot be watched, and a figure
            that cannot be written.
    """
    options = _parser().parse_args(args)
    for directory in options.runs:
        _check(directory)
    settings = lines([measure(load(directory, options.modules)) for directory in options.runs])
    if not settings:
        raise UserError("no run has a finite value of NC1, NC2 or NC3: there is nothing to draw.")
    figure = options.figure or _beside(options.runs)
    write_figure(figure, along_figure(settings, along_scales(settings)))
    print(f"Figure: {figure}.{{{','.join(METADATA)}}}")
    return 0


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deq-collapse along",
        description="Measures trained networks at H0 and after every evaluation of a block, from their last"
        " checkpoints, and draws them in one figure.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="directory of a run")
    parser.add_argument(
        "--modules",
        nargs="+",
        metavar="NAME",
        help="modules of the network to watch instead of blocks or iterates, e.g. 'encoder.*' refinement",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="PATH",
        help="where the figure goes, without its suffix (default: along, beside or in the runs)",
    )
    return parser
