"""The LightningCLI of this project: what must agree is linked, what every run leaves behind is always on."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from deq_collapse import callbacks
from deq_collapse.config_files import expand_parts, first_difference, sentence
from deq_collapse.data import CollapseDataModule
from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically
from deq_collapse.models import CollapseModule

CONFIG_FILE = "config.yaml"
PARSER = {"parser_mode": "omegaconf+", "exit_on_error": False}
NOT_THE_RUN = ("ckpt_path", "progress_title")
"""Keys in which two starts of the same run may differ."""
COMMANDS = ("fit", "validate", "test", "predict")


class FinishedRun(UserError):  # noqa: N818 - it is news, not an error
    """The run asked for lies there, finished."""


class SaveConfig(SaveConfigCallback):
    """Writes a fit's resolved configuration beside the run and attaches it to its loggers."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called on rank zero when a stage is set up."""
        if stage != "fit":
            return
        text = self.parser.dump(self.config, skip_none=False)
        write_atomically(Path(trainer.default_root_dir) / CONFIG_FILE, text)
        for logger in trainer.loggers:
            logger.log_hyperparams(yaml.safe_load(text))


class CollapseCLI(LightningCLI):
    """Lightning's command line with our module and data module."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's name and place in a study, the measuring schedule, and the links between data and
        model.
        """
        parser.add_argument("--name", type=str, default="run", help="What the run is called.")
        parser.add_argument("--study", type=str | None, default=None, help="The study the run belongs to.")
        parser.add_argument(
            "--axes",
            type=dict[str, str],
            default={},
            help="The run's place in the study's grid: label by axis.",
        )
        parser.add_argument(
            "--progress_title",
            type=str | None,
            default=None,
            help="What the progress display calls the run, if not its name.",
        )
        parser.add_lightning_class_args(callbacks.MeasurementSchedule, "schedule")
        for fact in ("image_shape", "class_counts", "majority"):
            parser.link_arguments(f"data.{fact}", f"model.{fact}", apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Keeps the command line's values: Lightning would replace them by the checkpoint's."""

    @property
    def settings(self) -> Any:
        """The parsed configuration of the subcommand."""
        return self.config[str(self.subcommand)]

    @property
    def directory(self) -> Path:
        """Where the run leaves its files."""
        given = self.settings.trainer.default_root_dir
        return Path(given) if given else Path("outputs", "runs", self.settings.name)

    def before_instantiate_classes(self) -> None:
        """Finds mistakes before anything is built or written.

        Raises:
            UserError: for a checkpoint that is not there, too many devices, an output directory that cannot
                be written, and a directory that holds another run.
        """
        _check_devices(self.settings.trainer)
        _check_checkpoint(self.settings.ckpt_path)
        if self.subcommand == "fit" and not self.settings.trainer.fast_dev_run:
            _check_writable(self.directory)
            self._check_other_run()

    def _check_other_run(self) -> None:
        saved = self.directory / CONFIG_FILE
        if not saved.exists():
            return
        old = yaml.safe_load(saved.read_text())
        new = yaml.safe_load(self._parser("fit").dump(self.settings, skip_none=False))
        differing = first_difference(old, new, ignore=NOT_THE_RUN)
        if differing and not self._only_longer(old, new):
            raise UserError(
                f"{self.directory} holds a run of another configuration ({differing}): choose another"
                " --name, or remove that directory."
            )
        if (self.directory / callbacks.record.RESULT).exists() and not differing:
            raise FinishedRun(
                f"{self.directory} holds this run, finished: raise --trainer.max_epochs to go on with"
                " --ckpt_path last, or choose another --name."
            )
        if (self.directory / "last.ckpt").exists() and not self.settings.ckpt_path:
            raise UserError(
                f"{self.directory} holds this run, interrupted: continue it with --ckpt_path last, or choose"
                " another --name."
            )

    def _only_longer(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether the same run is asked to go on for more epochs."""
        if not self.settings.ckpt_path or old["trainer"]["max_epochs"] >= new["trainer"]["max_epochs"]:
            return False
        shorter = old["trainer"]["max_epochs"]
        longer = new["trainer"]["max_epochs"]
        # Schedules that are spelled by max_epochs stretch with it.
        text = yaml.safe_dump(new).replace(f": {longer}\n", f": {shorter}\n")
        return not first_difference(old, yaml.safe_load(text), ignore=NOT_THE_RUN)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with what every run leaves behind."""
        settings = self.settings
        always = [
            callbacks.Environment(),
            callbacks.Costs(),
            callbacks.History(),
            callbacks.RunProgress(settings.progress_title or settings.name),
            callbacks.PredictionWriter(),
            callbacks.RunRecord(settings.name, settings.study, dict(settings.axes)),
            callbacks.LastCheckpoint(),
        ]
        self.trainer_defaults = {"callbacks": always}
        if self.subcommand == "fit" and not settings.trainer.fast_dev_run:
            self.directory.mkdir(parents=True, exist_ok=True)
        return super().instantiate_trainer(default_root_dir=str(self.directory), **kwargs)

    def before_fit(self) -> None:
        """Resolves ``last`` to the run's own checkpoint."""
        if self.settings.ckpt_path == "last":
            self.settings.ckpt_path = str(self.directory / "last.ckpt")
        self.config_init[str(self.subcommand)].ckpt_path = self.settings.ckpt_path


def lightning_main(args: Sequence[str]) -> CollapseCLI:
    """Runs a subcommand in this process.

    Raises:
        UserError: for every mistake in the configuration.
    """
    # With the default, an override on the command line does not reach values interpolated from it.
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    arguments = list(args)
    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.WARNING)  # the progress line tells what the rest of it would
    with _program_arguments(arguments), warnings.catch_warnings():
        _silence()
        try:
            return CollapseCLI(
                CollapseModule,
                CollapseDataModule,
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},
                seed_everything_default=0,
                auto_configure_optimizers=False,
                parser_kwargs=PARSER | dict.fromkeys(COMMANDS, PARSER),
                args=expand_parts(arguments),
            )
        except (ArgumentError, MisconfigurationException) as error:
            raise UserError(sentence(str(error))) from error


@contextmanager
def _program_arguments(args: list[str]) -> Iterator[None]:
    """Lightning starts further ranks by the program's own arguments: they must be those of this run."""
    before = sys.argv
    sys.argv = [before[0], *args]
    try:
        yield
    finally:
        sys.argv = before


def _silence() -> None:
    """What Lightning says of itself, and a user can do nothing about."""
    for message in (
        "LightningCLI's args parameter",  # we hand them over on purpose, see _program_arguments
        ".*LeafSpec.*is deprecated",  # Lightning 2.6 on torch 2.14
        ".*does not have many workers",  # batches are cut in memory
        ".*exists and is not empty",  # the manifest lies there before the checkpoint
    ):
        warnings.filterwarnings("ignore", message=message)


def _check_devices(trainer: Any) -> None:
    count = os.cpu_count() or 1
    if trainer.accelerator == "cpu" and isinstance(trainer.devices, int) and trainer.devices > count:
        raise UserError(f"{trainer.devices} CPU processes are asked for, but this machine has {count} cores.")


def _check_checkpoint(path: Any) -> None:
    if path and path not in ("last", "best", "hpc", "registry") and not Path(path).is_file():
        raise UserError(f"there is no checkpoint at {path}.")


def _check_writable(directory: Path) -> None:
    existing = directory
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(
            f"{directory} cannot be written: {existing} is not a directory this user may write to."
        )
