"""Class weights: the effective number, its limits, when they are switched on, and that they are state."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.losses import LDAM, BalancedSoftmax, ClassWeights, CrossEntropy
from deq_collapse.losses.weights import effective_number_weights

COUNTS = (1000, 100, 3)
counts = st.lists(st.integers(1, 5000), min_size=2, max_size=12)


def batch():
    torch.manual_seed(0)
    return torch.randn(9, 3), torch.arange(9) % 3


@given(counts=counts)
def test_beta_0_weighs_all_the_same_and_beta_near_1_by_the_inverse_of_the_counts(counts):
    torch.testing.assert_close(effective_number_weights(counts, 0.0), torch.ones(len(counts)))
    inverse = 1 / torch.tensor(counts).double()
    expected = (inverse * len(counts) / inverse.sum()).float()
    torch.testing.assert_close(effective_number_weights(counts, 1.0), expected)
    torch.testing.assert_close(effective_number_weights(counts, 1 - 1e-11), expected)


@given(counts=counts, beta=st.floats(0, 1))
def test_weights_have_mean_1_and_never_rise_with_the_count(counts, beta):
    weights = effective_number_weights(sorted(counts), beta)
    assert float(weights.mean()) == pytest.approx(1, rel=1e-5)
    assert (weights.diff() <= 1e-6).all()


def test_half_precision_rounds_neither_weights_nor_a_one_hot_label():
    logits, labels = batch()
    criterion = CrossEntropy(COUNTS, weights=ClassWeights(0.999))
    value = criterion(logits, labels)
    assert criterion.bfloat16()(logits, labels) == value
    assert criterion.double()(logits.double(), labels) == pytest.approx(float(value))
    with torch.autocast("cpu", torch.bfloat16):
        assert criterion.float()(logits, F.one_hot(labels, 3).float()) == pytest.approx(
            float(value), rel=1e-6
        )


def test_the_effective_number_counted_by_hand():
    """beta = 1/2: one sample covers 1, two cover 3/2."""
    torch.testing.assert_close(effective_number_weights((1, 2), 0.5), torch.tensor([1.2, 0.8]))


def test_the_mean_is_weighted_as_torchs():
    logits, labels = batch()
    weights = effective_number_weights(COUNTS, 0.999)
    value = CrossEntropy(COUNTS, weights=ClassWeights(0.999))(logits, labels)
    assert value == F.cross_entropy(logits, labels, weights)
    torch.testing.assert_close(
        LDAM(COUNTS, max_margin=0, weights=ClassWeights(0.999))(logits, labels), value, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(("epochs", "last_without"), [(200, 159), (100, 79), (35, 27), (2, 0), (1, None)])
def test_deferred_weights_are_switched_on_after_their_share_of_the_epochs(epochs, last_without):
    criterion = CrossEntropy(COUNTS, weights=ClassWeights(after=0.8))
    without = []
    for epoch in range(epochs):
        criterion.at_epoch(epoch, epochs)
        if torch.equal(criterion.class_weights, torch.ones(3)):
            without.append(epoch)
    assert without == list(range(epochs if last_without is None else last_without + 1))


def test_a_checkpoint_holds_the_weights_in_effect_and_nothing_where_there_are_none():
    late, fresh = (CrossEntropy(COUNTS, weights=ClassWeights(after=0.8)) for _ in range(2))
    late.at_epoch(160, 200)
    fresh.load_state_dict(late.state_dict())
    assert torch.equal(fresh(*batch()), late(*batch()))
    assert not torch.equal(fresh.class_weights, torch.ones(3))
    assert not CrossEntropy(COUNTS).state_dict()


def test_deferred_weights_need_to_know_how_many_epochs_there_are():
    criterion = CrossEntropy(COUNTS, weights=ClassWeights(after=0.8))
    with pytest.raises(UserError, match="length is known beforehand"):
        criterion.at_epoch(0, -1)
    CrossEntropy(COUNTS, weights=ClassWeights()).at_epoch(0, -1)


def test_what_counts_decide_moves_with_the_module_and_is_part_of_its_state():
    criterion = BalancedSoftmax((90, 10))
    assert criterion.to("meta").log_counts.is_meta
    assert BalancedSoftmax((90, 10)).state_dict().keys() == {"log_counts"}
