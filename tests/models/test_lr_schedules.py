"""The learning rates of the LDAM recipe, epoch by epoch."""

import pytest
import torch
from torch import nn

from deq_collapse.errors import UserError
from deq_collapse.models import WarmupMultiStep


def optimizer():
    return torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)


def test_the_rates_of_ldams_recipe():
    """Its code: epochs from 1; lr e / 5 up to the 5th, 1% after the 160th, 0.01% after the 180th."""
    sgd = optimizer()
    schedule = WarmupMultiStep(sgd, [160, 180])
    rates = []
    for _ in range(200):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule.step()
    assert rates[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert rates[5:160] == pytest.approx([0.1] * 155)
    assert rates[160:180] == pytest.approx([0.001] * 20)
    assert rates[180:] == pytest.approx([1e-5] * 20)


def test_a_schedule_goes_on_where_its_state_was_taken():
    sgd = optimizer()
    schedule = WarmupMultiStep(sgd, [3], warmup=1)
    for _ in range(4):
        sgd.step()
        schedule.step()
    again = optimizer()
    goes_on = WarmupMultiStep(again, [3], warmup=1)
    again.load_state_dict(sgd.state_dict())
    goes_on.load_state_dict(schedule.state_dict())
    assert goes_on.get_last_lr() == schedule.get_last_lr() == pytest.approx([0.001])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"milestones": [180, 160]}, "they are above 0 and ascend"),
        ({"milestones": [160], "warmup": 0}, "warmup is at least 1"),
        ({"milestones": [160], "gamma": 10.0}, r"gamma in \(0, 1\]"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        WarmupMultiStep(optimizer(), **options)
