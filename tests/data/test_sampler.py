"""Re-sampling visits classes as often as promised, and images within a class evenly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deq_collapse.data import Resampled, Shuffled
from deq_collapse.errors import UserError

SEEDS = st.integers(0, 2**32)
EPOCHS = st.integers(0, 300)
COUNTS = st.lists(st.integers(1, 40), min_size=2, max_size=8)
POWERS = st.floats(0, 1)


def labelled(counts):
    """Labels with these class counts, in no order."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


@given(COUNTS, POWERS, SEEDS, EPOCHS)
def test_an_epoch_gives_each_class_its_share_rounded_and_its_images_equal_turns(counts, power, seed, epoch):
    labels = labelled(counts)
    order = Resampled(power).order(labels, seed, epoch)
    assert len(order) == len(labels)
    weights = torch.tensor(counts, dtype=torch.float64).pow(power)
    expected = len(labels) * weights / weights.sum()
    visits = labels[order].bincount(minlength=len(counts))
    assert ((visits - expected).abs() < 1 + 1e-9).all()
    turns = order.bincount(minlength=len(labels))
    for c in range(len(counts)):
        of_class = turns[labels == c]
        assert of_class.max() - of_class.min() <= 1


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_over_epochs_every_image_is_visited_as_often_as_the_formula_says(power):
    counts = [40, 20, 7, 3]
    labels = labelled(counts)
    epochs = 600
    orders = [Resampled(power).order(labels, 0, epoch) for epoch in range(epochs)]
    turns = torch.cat(orders).bincount(minlength=70) / epochs
    weights = torch.tensor(counts, dtype=torch.float64).pow(power)
    expected = (70 * weights / weights.sum() / torch.tensor(counts))[labels]
    # An image's turns in an epoch differ by one at most: standard deviation of the mean below 0.5 / 24.
    torch.testing.assert_close(turns.double(), expected, atol=0.1, rtol=0)


@given(COUNTS, SEEDS, EPOCHS)
def test_power_one_visits_every_image_once(counts, seed, epoch):
    labels = labelled(counts)
    assert sorted(Resampled(1.0).order(labels, seed, epoch).tolist()) == list(range(len(labels)))


def test_class_balanced_sampling_of_a_tail_shows_all_classes_equally_often():
    labels = labelled([500, 50, 5])
    visits = labels[Resampled().order(labels, 3, 1)].bincount()
    assert visits.tolist() == [185, 185, 185]


def test_before_the_epoch_it_begins_with_the_order_is_the_ordinary_one():
    labels = labelled([30, 5])
    deferred, ordinary, balanced = Resampled(from_epoch=2), Shuffled(), Resampled()
    for epoch in range(4):
        expected = ordinary if epoch < 2 else balanced
        assert torch.equal(deferred.order(labels, 7, epoch), expected.order(labels, 7, epoch))
    assert labels[deferred.order(labels, 7, 2)].bincount().tolist() != [30, 5]


def test_the_order_is_mixed_and_new_for_every_seed_and_epoch_and_else_the_same():
    labels = labelled([50, 5, 5])
    orders = [tuple(Resampled().order(labels, *of).tolist()) for of in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert len(set(orders)) == 3
    assert orders[0] == orders[3]
    first, second = labels[list(orders[0])].tensor_split(2)
    assert first.bincount().min() > 5
    assert second.bincount().min() > 5


@pytest.mark.parametrize("arguments", [{"power": -0.1}, {"power": 1.1}, {"from_epoch": -1}], ids=str)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(UserError, match=r"power is in 0\.\.1 and from_epoch >= 0"):
        Resampled(**arguments)


def test_a_resampling_that_would_never_begin_is_refused():
    Resampled(from_epoch=80).check(81)
    Resampled().check(0)
    with pytest.raises(UserError, match="length is known beforehand"):
        Resampled(from_epoch=80).check(0)
    with pytest.raises(UserError, match=r"begins after 80 epochs, but the run has 80: lower .*from_epoch"):
        Resampled(from_epoch=80).check(80)
