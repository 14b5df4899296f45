"""Trainer options that would measure a run on part of a split, or at other times."""

from typing import Any

from deq_collapse.errors import UserError

PARTS = {
    "overfit_batches": 0.0,
    "limit_val_batches": 1.0,
    "limit_test_batches": 1.0,
    "limit_predict_batches": 1.0,
}
"""Options that take a part of a split, each with the value that takes all of it."""


def check_whole(trainer: Any) -> None:
    """Checks that every measurement covers whole splits, after the epochs set by ``schedule``.

    Args:
        trainer: a trainer, or its configuration, in which ``None`` means that an option was not given.

    Raises:
        UserError: for ``limit_val_batches``, ``limit_test_batches``, ``limit_predict_batches``,
            ``overfit_batches`` and ``check_val_every_n_epoch``.
    """
    if trainer.fast_dev_run:
        return
    # The first one sets the others.
    for name, given in PARTS.items():
        value = getattr(trainer, name)
        if value is not None and not _is(value, given):
            raise UserError(
                f"trainer.{name} is {value}, but measures of a part of a split are none of the run: leave it"
                " out; --trainer.fast_dev_run true tries a run out, and data.imbalance makes a smaller one."
            )
    every = trainer.check_val_every_n_epoch
    if every is not None and every != 1:
        raise UserError(
            f"trainer.check_val_every_n_epoch is {every}, but --schedule.dense and --schedule.growth say"
            " after which epochs a run is measured: leave it out."
        )


def _is(value: Any, given: float) -> bool:
    """Tell whole numbers from shares: 1 is one batch, 1.0 is all."""
    return value == given and (isinstance(value, float) or given == 0)
