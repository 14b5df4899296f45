"""Runs whose result is an average of weights: the average is measured, saved and recorded."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, StochasticWeightAveraging, WeightAveraging

from deq_collapse.errors import UserError


def check_averaging(callbacks: list[Callback]) -> None:
    """Checks that an average can be measured before the fit ends.

    Raises:
        UserError: for ``StochasticWeightAveraging``, which exchanges the weights after the last measurement.
    """
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        raise UserError(
            "StochasticWeightAveraging exchanges the weights after their last measurement: use"
            " EMAWeightAveraging or WeightAveraging, whose average is measured as training goes on."
        )


def moved_since_measured(trainer: Trainer) -> bool:
    """Whether an average was updated at the end of this epoch, after it was measured."""
    return any(average._latest_update_epoch == trainer.current_epoch for average in _averages(trainer))


def settle(trainer: Trainer, module: LightningModule) -> None:
    """Sets a module's weights to the average at the end of a fit: Lightning skips this if a run resumes from
    its very last checkpoint.
    """
    for average in _averages(trainer):
        if average._average_model is not None:
            average._copy_average_to_current(module)


def _averages(trainer: Trainer) -> list[WeightAveraging]:
    return [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]
