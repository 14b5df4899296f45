"""The LightningCLI of this project: it links what must agree, and always enables the files of every run."""

import math
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from deq_collapse import callbacks
from deq_collapse.config.built import check_built
from deq_collapse.config.checks import (
    check_checkpoints,
    check_devices,
    check_name,
    check_seed,
    check_slurm,
    check_strategy,
)
from deq_collapse.config.commands import COMMANDS
from deq_collapse.config.files import dump_yaml, first_difference, linked, read_yaml, sentence
from deq_collapse.config.inherited import inherited
from deq_collapse.config.mistakes import explain
from deq_collapse.config.ranks import limit_patience
from deq_collapse.errors import Diverged, UserError
from deq_collapse.files import check_writable, write_atomically
from deq_collapse.models.batch_norm import SynchronisedBatchNorm
from deq_collapse.runs.files import (
    ALONG,
    CHECKPOINT,
    CONFIG,
    CONFUSION,
    ENVIRONMENT,
    GEOMETRY,
    HISTORY,
    MANIFEST,
    PREVIOUS,
    RESULT,
    SPLITS,
)
from deq_collapse.training import run_callbacks

NOT_THE_RUN = ("ckpt_path", "trainer.logger", "along", "oversubscribe")
"""Keys in which two starts of the same run may differ."""


@rank_zero_only
@cache
def _say_once(message: str) -> None:
    """Prints a message of all cells once."""
    print(message, file=sys.stderr, flush=True)


class FinishedRun(UserError):  # noqa: N818 - it is news, not an error
    """The requested run exists and is finished."""


class SaveConfig(SaveConfigCallback):
    """Writes a fit's configuration into the run's directory and passes it, resolved, to its loggers.

    Every key has its value, except for links to other keys: they are kept, so that the file can be reused,
    e.g. with another seed.

    Args:
        links: the values as given, e.g. ``${seed_everything}``, by dotted key.
    """

    def __init__(self, *args: Any, links: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.links = links

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called on rank zero when a stage is set up."""
        if stage != "fit":
            return
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        content = {key: value for key, value in config.items() if key != "ckpt_path"}
        text = dump_yaml(linked(content, self.links))
        write_atomically(Path(trainer.default_root_dir) / CONFIG, text)
        for logger in trainer.loggers:
            logger.log_hyperparams(content)


class CollapseCLI(LightningCLI):
    """Lightning's command line with our module and data module."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run's name and place in a study, the schedule, and the links between data and model."""
        parser.add_argument("--name", type=str, default="run", help="What the run is called.")
        parser.add_argument("--study", type=str | None, default=None, help="The study the run belongs to.")
        parser.add_argument(
            "--axes",
            type=dict[str, str],
            default={},
            help="The run's place in the study's grid: label by axis.",
        )
        parser.add_argument(
            "--oversubscribe",
            type=bool | None,
            default=None,
            help="Whether there may be more processes on a CPU than it has cores.",
        )
        parser.add_lightning_class_args(callbacks.MeasurementSchedule, "schedule")
        parser.add_lightning_class_args(callbacks.Along, "along")
        for fact in ("image_shape", "class_counts", "majority"):
            parser.link_arguments(f"data.{fact}", f"model.{fact}", apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Keeps the command line's values, which Lightning would replace by the checkpoint's."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses; a mistake is reported in one sentence."""
        try:
            super().parse_arguments(parser, args)
        except (ArgumentError, OmegaConfBaseException) as error:
            command = next((arg for arg in args[:1] if arg in COMMANDS), None)
            keys = self._parser(command).get_defaults().keys()
            raise UserError(explain(error, keys)) from error
        settings = self.config.get(str(self.config.get("subcommand")), self.config)
        check_seed(settings.seed_everything)
        self._inherited = inherited([str(arg) for arg in args or ()])

    def instantiate_classes(self) -> None:
        """Builds everything, then prints which options a class inherits from the one named before it."""
        super().instantiate_classes()
        for found in self._inherited:
            value = self.settings.get(found.place)
            if value is not None:
                _say_once(
                    f"deq-collapse: {found.key} is {found.now} with {found.option} {value}, which was given"
                    f" for {found.given_for}: set {found.place} if that is not meant."
                )

    @property
    def settings(self) -> Any:
        """The parsed configuration, of the subcommand if there is one."""
        return self.config.get(str(self.subcommand), self.config)

    @property
    def along(self) -> callbacks.Along:
        """The callback that measures the trained network along its computation."""
        along: callbacks.Along = self._get(self.config_init, "along")
        return along

    @property
    def directory(self) -> Path:
        """The directory of the run's files."""
        given = self.settings.trainer.default_root_dir
        return Path(given) if given else Path("outputs", "runs", self.settings.name)

    def before_instantiate_classes(self) -> None:
        """Finds mistakes before anything is built or written.

        Raises:
            UserError: for a missing checkpoint, too many devices, processes that cannot be started, an output
                directory that is not writable, and a directory that holds another run.
        """
        check_name(self.settings.name)
        check_slurm()
        check_devices(self.settings.trainer, bool(self.settings.oversubscribe))
        check_strategy(self.settings.trainer.strategy)
        check_checkpoints(self.settings.trainer)
        callbacks.check_whole(self.settings.trainer)
        self._resolve_checkpoint()
        if self.subcommand == "fit" and not self.settings.trainer.fast_dev_run:
            check_writable(self.directory)
            self._check_other_run()

    def _resolve_checkpoint(self) -> None:
        """Resolves ``last``; without a checkpoint, Lightning would continue with random weights."""
        path = self.settings.ckpt_path
        if path == "last":
            path = self._last_checkpoint()
            if self.subcommand == "fit" and not Path(path).exists():
                path = None
        if path and not Path(path).is_file():
            raise UserError(f"there is no checkpoint at {path}.")
        if path and (found := callbacks.damage(Path(path))):
            raise UserError(f"{path} is not a whole checkpoint: {found}.")
        if path and (lacking := callbacks.lacks(Path(path))):
            raise UserError(
                f"{path} is no checkpoint of a run, for it has no {lacking}: weights of your own are measured"
                " by deq_collapse.measure, see docs/python.md."
            )
        if not path and self.subcommand not in ("fit", None):
            raise UserError(f"{self.subcommand} needs the weights of a run: give --ckpt_path.")
        self.settings.ckpt_path = path
        if "verbose" in self.settings:
            self.settings.verbose = False  # we print all splits as one table

    def _last_checkpoint(self) -> str:
        """The last checkpoint of the run or, if it is damaged, the previous one."""
        last, previous = self.directory / CHECKPOINT, self.directory / PREVIOUS
        found = callbacks.damage(last) if last.exists() else "it is gone"
        if found is None or not previous.exists() or callbacks.damage(previous):
            return str(last)
        rank_zero_warn(f"{last} is not a whole checkpoint ({found}); the one before it is used, {previous}.")
        return str(previous)

    def _check_other_run(self) -> None:
        saved, run = self.directory / CONFIG, "a run that was made from Python"
        if saved.exists():
            new = yaml.safe_load(self._parser("fit").dump(self.settings, skip_none=False))
            differing = first_difference(self.completed(saved), new, ignore=NOT_THE_RUN)
            if differing:
                raise UserError(
                    f"{self.directory} holds a run of another configuration ({differing}): choose another"
                    " --name, or remove that directory."
                )
            run = "this run"
        if (self.directory / RESULT).exists():
            raise FinishedRun(f"{self.directory} holds {run}, finished: choose another --name for a new one.")
        if (self.directory / CHECKPOINT).exists() and not self.settings.ckpt_path:
            raise UserError(
                f"{self.directory} holds {run}, interrupted: continue it with --ckpt_path last, or choose"
                " another --name."
            )

    def completed(self, saved: Path) -> dict[str, Any]:
        """The configuration that a run has saved. A key that did not exist then has its current default; a
        new key must not change runs without it.

        Raises:
            UserError: if the file is damaged.
        """
        content = read_yaml(saved)
        try:
            config = self.parser.parse_args(["fit", "--config", str(saved)])["fit"]
        except ArgumentError:  # a key no longer exists: reported as a difference
            return content
        completed: dict[str, Any] = yaml.safe_load(self._parser("fit").dump(config, skip_none=False))
        return completed

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with the callbacks of every run.

        Raises:
            UserError: for a configuration that cannot be trained.
        """
        settings = self.settings
        self.along.check(self.model.network, self.datamodule.image_shape)
        self.trainer_defaults = {"callbacks": self._always()}
        if self.subcommand != "fit":
            kwargs["logger"] = False  # its curves are those of the fit
        over_ranks = [SynchronisedBatchNorm()] if settings.trainer.sync_batchnorm else []
        kwargs["plugins"] = [*self._given("plugins"), callbacks.AtomicCheckpointIO(), *over_ranks]
        try:
            trainer = super().instantiate_trainer(default_root_dir=str(self.directory), **kwargs)
        except (UserError, MisconfigurationException):
            raise
        except Exception as error:  # Lightning has no single exception for conflicts
            raise UserError(f"the trainer cannot be made: {sentence(str(error))}") from error
        limit_patience(trainer)
        if self.subcommand == "fit":
            check_built(trainer, self.model, self.datamodule)
        return trainer

    def _always(self) -> list[Callback]:
        settings = self.settings
        own_bar = any(isinstance(callback, ProgressBar) for callback in self._given("callbacks"))
        hidden = own_bar or settings.trainer.enable_progress_bar is False
        return run_callbacks(settings.name, settings.study, dict(settings.axes), not hidden)

    def _given(self, name: str) -> list[Any]:
        """The configured values of a trainer option, one or several, as a list."""
        given = self._get(self.config_init, "trainer")[name] or []
        return given if isinstance(given, list) else [given]

    def fit(self, **options: Any) -> None:
        """Called for the subcommand. A mistake found before any training leaves no files."""
        new = not (self.directory / CONFIG).exists()
        made = [path for path in (self.directory, *self.directory.parents) if not path.exists()]
        try:
            self.trainer.fit(**options)
        except (UserError, MisconfigurationException) as error:
            trained = (self.directory / CHECKPOINT).exists() or isinstance(error, Diverged)
            if new and not trained and self.trainer.is_global_zero:
                for name in (CONFIG, MANIFEST, ENVIRONMENT, HISTORY, ALONG, CONFUSION, GEOMETRY):
                    (self.directory / name).unlink(missing_ok=True)
                with suppress(OSError):  # other files are in one of them
                    for path in made:
                        path.rmdir()
            raise

    def after_fit(self) -> None:
        """Prints the run's directory."""
        if self.trainer.is_global_zero and not self.settings.trainer.fast_dev_run and not self.settings.study:
            print(f"Run: {self.directory}")

    def after_validate(self) -> None:
        """Prints the measures of all splits."""
        self._print_measures()

    def after_test(self) -> None:
        """Prints the measures of the test split."""
        self._print_measures()

    def _print_measures(self) -> None:
        values = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        splits = [split for split in SPLITS if any(name.startswith(f"{split}/") for name in values)]
        table = Table("measure", *splits)
        for metric in dict.fromkeys(name.partition("/")[2] for name in values):
            table.add_row(metric, *(f"{values.get(f'{split}/{metric}', math.nan):.6g}" for split in splits))
        if self.trainer.is_global_zero:
            Console().print(table)
