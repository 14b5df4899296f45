"""Learning-rate schedules that torch's own, each made from an optimizer alone, do not give."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from deq_collapse.errors import UserError


class WarmupMultiStep(LambdaLR):
    """A linear warm-up, then steps down: the schedule of the literature on imbalance (LDAM, Cao et al. 2019).

    In the e-th epoch, counted from 1, the learning rate is the optimizer's times ``min(1, e / warmup)``,
    times gamma for each milestone below e.

    Args:
        optimizer: whose learning rates are set.
        milestones: completed epochs after which the rate falls, ascending.
        warmup: epochs until the full rate, at least 1; 1 is none.
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
