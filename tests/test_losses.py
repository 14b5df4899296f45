"""Criteria that know the class counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from deq_collapse.losses import BalancedSoftmax, CrossEntropy


def batch(seed=0):
    torch.manual_seed(seed)
    return 3 * torch.randn(20, 4), torch.arange(20) % 4


@settings(max_examples=25, deadline=None, derandomize=True)
@given(count=st.integers(1, 10_000), seed=st.integers(0, 1000))
def test_balanced_softmax_on_equal_counts_is_cross_entropy(count, seed):
    logits, labels = batch(seed)
    torch.testing.assert_close(BalancedSoftmax((count,) * 4)(logits, labels), F.cross_entropy(logits, labels))


def test_balanced_softmax_is_the_papers_formula():
    logits, labels = batch()
    counts = torch.tensor([100.0, 10, 5, 1])
    weighted = counts * logits.exp()
    expected = -(weighted[torch.arange(20), labels] / weighted.sum(1)).log().mean()
    torch.testing.assert_close(BalancedSoftmax((100, 10, 5, 1))(logits, labels), expected)


def test_balanced_softmax_asks_a_rare_class_for_a_larger_logit():
    logits = torch.zeros(2, 2)
    criterion = BalancedSoftmax((90, 10))
    rare, frequent = (criterion(logits, torch.full((2,), label)) for label in (1, 0))
    assert float(rare) == pytest.approx(-torch.tensor(0.1).log().item())
    assert float(frequent) == pytest.approx(-torch.tensor(0.9).log().item())


def test_the_counts_move_with_the_module_and_are_part_of_its_state():
    criterion = BalancedSoftmax((90, 10))
    assert criterion.to("meta").log_counts.is_meta
    assert BalancedSoftmax((90, 10)).state_dict().keys() == {"log_counts"}


def test_cross_entropy_ignores_the_counts_and_smooths_labels():
    logits, labels = batch()
    assert CrossEntropy((1, 2, 3, 4))(logits, labels) == F.cross_entropy(logits, labels)
    smooth = CrossEntropy((1, 2, 3, 4), label_smoothing=0.1)(logits, labels)
    assert smooth == F.cross_entropy(logits, labels, label_smoothing=0.1)
