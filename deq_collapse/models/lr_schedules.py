"""Learning-rate schedules that torch lacks, and the values that a schedule may follow."""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from deq_collapse.errors import UserError


class WarmupMultiStep(LambdaLR):
    """A linear warm-up, then steps down: the schedule of the literature on imbalance (LDAM, Cao et al. 2019).

    In the e-th epoch, counted from 1, the learning rate is the optimizer's times ``min(1, e / warmup)``,
    times gamma for each milestone below e.

    Args:
        optimizer: its learning rates are set.
        milestones: completed epochs after which the rate falls, ascending.
        warmup: epochs until the full rate, at least 1; 1 means no warm-up.
        gamma: in (0, 1].

    Raises:
        UserError: for an argument out of its range.
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], warmup: int = 5, gamma: float = 0.01
    ) -> None:
        if warmup < 1 or not 0 < gamma <= 1:
            raise UserError(
                f"warmup is {warmup} and gamma {gamma}, but warmup is at least 1 and gamma in (0, 1]."
            )
        if any(later <= earlier for earlier, later in pairwise([0, *milestones])):
            raise UserError(f"milestones are {list(milestones)}, but they are above 0 and ascend.")
        super().__init__(
            optimizer,
            lambda done: min(1.0, (done + 1) / warmup) * gamma ** bisect_right(milestones, done),
        )


def monitored(schedule: object) -> str | None:
    """The name of the value that a schedule follows; ``None`` if it follows the epochs.

    Raises:
        UserError: for torch's own ``ReduceLROnPlateau``, which has no such name.
    """
    if not isinstance(schedule, ReduceLROnPlateau):
        return None
    if not hasattr(schedule, "monitor"):
        raise UserError(
            "model.lr_scheduler: torch's ReduceLROnPlateau does not know what it follows: take"
            " lightning.pytorch.cli.ReduceLROnPlateau, with monitor, as train/loss."
        )
    return str(schedule.monitor)


def follow(schedule: Any, values: Mapping[str, Any]) -> None:
    """Steps a ``ReduceLROnPlateau`` with the value that it follows.

    Raises:
        UserError: if the value is not available.
    """
    if schedule.monitor not in values:
        raise not_measured("model.lr_scheduler", schedule.monitor, values)
    schedule.step(values[schedule.monitor])


def not_measured(what: str, name: str, names: Collection[str]) -> UserError:
    """The error to raise if something follows a value that no run of this kind logs.

    Args:
        what: the part that follows the value.
        name: of the value.
        names: of the values that are logged.
    """
    measure = name.rpartition("/")[2]
    near = [known for known in names if known.endswith(f"/{measure}")] or get_close_matches(name, names, n=3)
    near = near or [known for known in names if known.endswith("/loss")]
    return UserError(
        f"{what} follows {name}, which is not logged while this run trains; did you mean {' or '.join(near)}?"
    )
