"""Measures finished runs along their computation, from their files."""

import json
from pathlib import Path

import torch

from deq_collapse.config.command_line import CollapseCLI
from deq_collapse.config.files import read_yaml
from deq_collapse.config.run import lightning_main
from deq_collapse.errors import UserError
from deq_collapse.runs.along import Course, write_along
from deq_collapse.runs.config import read_saved
from deq_collapse.runs.files import ALONG, ALONG_MODULES, CHECKPOINT, CONFIG
from deq_collapse.runs.setting import in_words, setting_in_words


def check_run(directory: Path) -> None:
    """Checks that a directory holds a run that can be measured again.

    Raises:
        UserError: if it has no configuration or no checkpoint.
    """
    if not (directory / CONFIG).is_file():
        raise UserError(f"{directory} holds no run: there is no {CONFIG} in it.")
    if not (directory / CHECKPOINT).is_file():
        raise UserError(f"{directory} holds a run without a checkpoint: there is no {CHECKPOINT} in it.")


class Loaded(CollapseCLI):
    """Builds the parts of a run, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Does nothing."""


def load(directory: Path, modules: list[str] | None) -> CollapseCLI:
    """Loads a run's data, model and trainer, with the weights of its last checkpoint, in one process.

    Raises:
        UserError: for a checkpoint that is truncated or of another architecture, and a module that cannot be
            watched.
    """
    config, path = directory / CONFIG, directory / CHECKPOINT
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


def measure(cli: CollapseCLI, modules: list[str] | None) -> Course:
    """Writes the table into the run's directory; if modules were given, beside the run's own table.

    Raises:
        UserError: if collapse cannot be measured on the features, or the table cannot be written.
    """
    try:
        table = cli.along.measure(cli.trainer, cli.model, cli.datamodule)
    except ValueError as error:
        raise UserError(f"{cli.directory}: {error}") from error
    print(f"Along: {write_along(table, cli.directory, ALONG if modules is None else ALONG_MODULES)}")
    axes = dict(cli.settings.axes)
    words = in_words(axes, read_saved(cli.directory).imbalance)
    return Course(
        name=cli.settings.name,
        axes=axes,
        refinement=type(cli.model.network.refinement).__name__.lower(),
        setting=setting_in_words(words) or cli.datamodule.source.name,
        table=table,
    )
