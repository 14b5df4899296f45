"""Mistakes that show once a run is built, found before anything is written."""

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from torch.nn.modules.batchnorm import _BatchNorm

from deq_collapse.callbacks import check_averaging
from deq_collapse.config.files import sentence
from deq_collapse.config.monitors import check_monitors
from deq_collapse.data import CollapseDataModule
from deq_collapse.errors import UserError
from deq_collapse.models import CollapseModule, Equilibrium, MonotoneCell, Unfolded
from deq_collapse.models.cells.bounded import Bounded
from deq_collapse.models.precision import refuse_half


def check_built(trainer: Trainer, module: CollapseModule, data: CollapseDataModule) -> None:
    """Checks that a fit can start, as far as its parts show.

    Raises:
        UserError: if it cannot.
    """
    _check_steps(trainer, data)
    _check_clipping(trainer)
    _check_callbacks(trainer.callbacks, bool(trainer.loggers))  # type: ignore[attr-defined]
    _check_precision(trainer, module)
    _check_statistics(trainer, module)
    _check_optimizer(module)
    check_monitors(trainer, module, data)
    _check_smallest_batch(trainer, module, data)


def _check_steps(trainer: Trainer, data: CollapseDataModule) -> None:
    if trainer.accumulate_grad_batches < 1:
        raise UserError(
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}, but a step takes at least"
            " one batch."
        )
    if 0 in (trainer.max_epochs, trainer.max_steps, trainer.limit_train_batches):
        raise UserError(
            "trainer.max_epochs, max_steps and limit_train_batches are at least 1 in a fit: a run without a"
            " step has no record; `deq-collapse validate` measures weights as they are."
        )
    for least, most in (("min_epochs", "max_epochs"), ("min_steps", "max_steps")):
        low, high = getattr(trainer, least), getattr(trainer, most)
        if low is not None and high is not None and low > high >= 0:
            raise UserError(f"trainer.{least} is {low}, but trainer.{most} is {high}, which is less.")
    batches, every = data.batches(trainer), trainer.val_check_interval
    if isinstance(every, int | float) and (every <= 0 or (isinstance(every, int) and every > batches)):
        raise UserError(
            f"trainer.val_check_interval is {every}, but an epoch has {batches} batches: give a share of an"
            " epoch, such as 0.5, or leave it out."
        )


def _check_clipping(trainer: Trainer) -> None:
    largest = trainer.gradient_clip_val
    if largest is None and trainer.gradient_clip_algorithm is not None:
        raise UserError(
            "trainer.gradient_clip_algorithm is set, but nothing is clipped: set trainer.gradient_clip_val,"
            " or leave it out."
        )
    if largest is not None and not 0 <= largest < math.inf:
        raise UserError(
            f"trainer.gradient_clip_val is {largest}, but it is a number of at least 0, at which nothing is"
            " clipped."
        )


def _check_callbacks(callbacks: Sequence[Callback], logged: bool) -> None:
    check_averaging(list(callbacks))
    if not logged and any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
        raise UserError(
            "LearningRateMonitor writes to a logger, and the run has none: set trainer.logger, or leave it"
            " out, for history.csv has the learning rate of every epoch."
        )


def _check_precision(trainer: Trainer, module: CollapseModule) -> None:
    refinement = module.network.refinement
    if trainer.precision not in ("16-true", "bf16-true"):
        return
    if isinstance(refinement, Equilibrium | Unfolded):
        refuse_half()
    if any(isinstance(part, Bounded | MonotoneCell) for part in refinement.modules()):
        refuse_half("the bound of a cell is followed")


def _check_statistics(trainer: Trainer, module: CollapseModule) -> None:
    """Refuses statistics over ranks within a solve: ranks evaluate a cell different numbers of times, so one
    would wait for the other for ever.
    """
    refinement = module.network.refinement
    if not isinstance(refinement, Equilibrium) or getattr(trainer.strategy, "_layer_sync", None) is None:
        return
    if trainer.world_size > 1 and any(isinstance(part, _BatchNorm) for part in refinement.cell.modules()):
        raise UserError(
            f"{type(refinement.cell).__name__} has batch norm, and each rank solves its own equation with its"
            " own number of evaluations: set trainer.sync_batchnorm to false, or train in one process."
        )


def _check_optimizer(module: CollapseModule) -> None:
    try:
        made = module.configure_optimizers()
    except UserError:
        raise
    except Exception as error:  # any error of torch's or the user's classes
        reason = sentence(str(error)).rstrip(".")
        raise UserError(f"model.optimizer and model.lr_scheduler: {reason}.") from error
    for optimizer in made[0] if isinstance(made, tuple) else ():
        for name, value in optimizer.defaults.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"model.optimizer: {name} is {value}, but it is a finite number.")


def _check_smallest_batch(trainer: Trainer, module: CollapseModule, data: CollapseDataModule) -> None:
    """Refuses a last batch of one image if batch norm would see only one number per channel."""
    if data.smallest_batch(trainer) != 1:
        return
    network = deepcopy(module.network)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            network(torch.zeros(1, *data.image_shape))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "batch norm cannot normalise the last batch of an epoch, which has 1 image: set another"
            f" data.batch_size than {data.batch_size}."
        ) from error
