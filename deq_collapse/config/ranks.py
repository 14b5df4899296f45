"""Runs of several processes: how long one waits for another, and its message if the other is gone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.constants import default_pg_timeout

from deq_collapse.errors import RankLost

PATIENCE = timedelta(minutes=5)
"""How long a process waits for another. A killed process is noticed at once, a lost host after this time."""
GO_ON = "the same command with --ckpt_path last goes on from the last checkpoint"
LAUNCHER = "lightning.fabric.strategies.launchers.subprocess_script"
"""The logger of the watcher of the processes that a run has started."""


def limit_patience(trainer: Trainer) -> None:
    """Limits how long a process waits for the others to `PATIENCE`; torch's limit with gloo is half an hour.

    A strategy with an explicit ``timeout`` keeps it.
    """
    strategy: Any = trainer.strategy
    if isinstance(strategy, DDPStrategy) and strategy._timeout == default_pg_timeout:
        strategy._timeout = PATIENCE


@contextmanager
def losses_told() -> Iterator[None]:
    """Reports in one sentence that another process is gone.

    Raises:
        RankLost: in place of the errors of torch and gloo.
    """
    watch = logging.getLogger(LAUNCHER)
    level = watch.level
    watch.setLevel(logging.INFO)  # logged before it kills the rest
    watch.addFilter(_in_our_words)
    try:
        yield
    except RuntimeError as error:
        if not _of_another(error):
            raise
        raise RankLost(
            "another process of the run ended, or could not be reached in time,"
            f" so this one ends too; {GO_ON}."
        ) from error
    finally:
        watch.removeFilter(_in_our_words)
        watch.setLevel(level)


def _of_another(error: RuntimeError) -> bool:
    """Whether an error of torch is about a connection between ranks."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _in_our_words(record: logging.LogRecord) -> bool:
    if "terminated with code" in str(record.msg):
        record.msg = f"deq-collapse: a process of the run was killed or failed, so all of it ends; {GO_ON}."
        record.args = ()
    return True
