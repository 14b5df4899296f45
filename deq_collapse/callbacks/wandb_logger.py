"""Runs on Weights & Biases: curves by completed epochs, one wandb run however often the run is resumed."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from deq_collapse.errors import UserError
from deq_collapse.files import write_atomically

if TYPE_CHECKING:
    from wandb.sdk.lib import RunDisabled
    from wandb.sdk.wandb_run import Run

ID_FILE = "wandb-id.txt"
TAG_LENGTH = 64
"""What wandb allows."""
SETTINGS = {"console": "off", "quiet": True, "init_timeout": 30, "finish_timeout": 60}
"""The run's own progress line stays whole, and a server that does not answer costs seconds, not the run."""


class CollapseWandbLogger(WandbLogger):
    """Logs a fit to Weights & Biases; ``conf/logger/wandb.yaml`` switches it on.

    The wandb id is written to ``wandb-id.txt`` when the run starts, and a resumed run goes on under it. Where
    the server of an online run cannot be reached when it starts, the run goes on offline, with a warning;
    where it is lost later, wandb keeps the values on disk. Either way ``wandb sync`` uploads them afterwards.

    Args:
        name: what the run is called.
        save_dir: the run's directory, its own.
        group: the study the run belongs to, or ``None``.
        axes: its place in the study's grid, label by axis; each becomes a tag ``axis:label``.
        project: wandb's project.
        mode: ``offline`` writes files only; ``online`` needs an account and uploads while training.
    """

    def __init__(
        self,
        name: str,
        save_dir: str,
        group: str | None = None,
        axes: dict[str, str] | None = None,
        project: str = "deq-collapse",
        mode: Literal["offline", "online"] = "offline",
    ) -> None:
        if mode == "offline":
            # Else wandb reports on itself even then.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        tags = [f"{axis}:{label}"[:TAG_LENGTH] for axis, label in (axes or {}).items()]
        settings = SETTINGS | {"silent": mode == "offline"}
        super().__init__(
            name=name,
            save_dir=save_dir,
            project=project,
            group=group,
            tags=tags,
            mode=mode,
            settings=settings,
        )
        # Lightning's default is a setting that wandb warns about.
        del self._wandb_init["anonymous"]

    @property
    @rank_zero_experiment
    def experiment(self) -> "Run | RunDisabled | None":
        """The wandb run, started when first asked for; Lightning asks on rank zero, after it has launched the
        other ranks.

        Raises:
            UserError: where ``online`` finds no valid login.
        """
        if self._experiment is None:
            file = Path(self._wandb_init["dir"], ID_FILE)
            self._id = file.read_text().strip() if file.exists() else secrets.token_hex(4)
            self._wandb_init["id"] = self._id
            file.parent.mkdir(parents=True, exist_ok=True)  # wandb looks from there for the commit
            self._start()
            write_atomically(file, f"{self._id}\n")
        return self._experiment

    def _start(self) -> None:
        from wandb.errors import AuthenticationError, CommError, UsageError

        try:
            run = super().experiment
        except (AuthenticationError, UsageError) as error:
            raise UserError(f"wandb cannot go online: {error} Or keep the logger's mode offline.") from error
        except CommError as error:
            self._go_offline(error)
            run = super().experiment
        run.define_metric("epoch")
        # Takes the place of Lightning's own "*": of several patterns that match, wandb takes any.
        run.define_metric("*", step_metric="epoch", step_sync=True, overwrite=True)

    def _go_offline(self, error: Exception) -> None:
        import wandb

        reason = str(error).partition("\n")[0]
        rank_zero_warn(f"wandb's server cannot be reached, the run goes on offline ({reason})")
        # The failed start would keep the id in use.
        wandb.teardown()
        self._wandb_init |= {"mode": "offline", "settings": SETTINGS | {"silent": True}}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs values under the number of completed epochs; Lightning counts the epoch it is in from 0."""
        if "epoch" in metrics:
            metrics = {**metrics, "epoch": metrics["epoch"] + 1}
        super().log_metrics(metrics, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Ends the wandb run: another run of the same process starts its own."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None
