"""The planned length of a fit, and whether and why it has ended, from Lightning's trainer."""

import math
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

EPOCHS, STEPS, TIME, EARLY, STOPPED = "epochs", "steps", "time", "early stopping", "stopped"
"""What ends a fit: ``max_epochs``, ``max_steps``, ``max_time`` or a ``Timer``, ``EarlyStopping``, and
anything else that sets ``trainer.should_stop``.
"""


def epochs_planned(trainer: Trainer, batches: float) -> int | None:
    """Number of epochs, the last possibly cut short, until ``max_epochs`` or ``max_steps`` ends a fit;
    ``None`` if neither is set.

    Args:
        trainer: before, in or after a fit.
        batches: number of batches per epoch and rank.
    """
    limits = []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        limits.append(trainer.max_epochs)
    if trainer.max_steps >= 0:
        limits.append(math.ceil(trainer.max_steps / math.ceil(batches / trainer.accumulate_grad_batches)))
    return min(limits, default=None)


def length(trainer: Trainer, batches: int) -> int:
    """The number of epochs of a fit if known beforehand, else 0: `epochs_planned`, unless a time limit or
    early stopping may end the fit earlier.
    """
    return 0 if any(map(_may_stop, trainer.callbacks)) else epochs_planned(trainer, batches) or 0  # type: ignore[attr-defined]


def is_over(trainer: Trainer) -> bool:
    """Whether no training step follows, when called after a step within an epoch, or at its end."""
    return _limit(trainer) is not None or (trainer.should_stop and trainer.fit_loop._can_stop_early)


def why(trainer: Trainer) -> str:
    """The reason why a fit has ended."""
    limit = _limit(trainer)
    if limit is not None:
        return limit
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and _has_limit(callback) and (callback.time_remaining() or 0) <= 0:
            return TIME
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            return EARLY
    return STOPPED


def is_whole(trainer: Trainer) -> bool:
    """Whether the current epoch of a trainer, or the one just ended, had all its batches."""
    return bool(trainer.fit_loop.epoch_loop._num_ready_batches_reached())


def _limit(trainer: Trainer) -> str | None:
    """The limit that has been reached, if any."""
    steps = 0 <= trainer.max_steps <= trainer.global_step
    if steps and not is_whole(trainer):  # even in the last epoch, which counts as processed when cut
        return STEPS
    epochs: Any = trainer.fit_loop.epoch_progress.current
    done = epochs.ready if is_whole(trainer) else epochs.processed
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= max(done, epochs.processed):
        return EPOCHS
    return STEPS if steps else None


def _may_stop(callback: object) -> bool:
    return isinstance(callback, EarlyStopping) or (isinstance(callback, Timer) and _has_limit(callback))


def _has_limit(timer: Timer) -> bool:
    return timer.time_remaining() is not None
