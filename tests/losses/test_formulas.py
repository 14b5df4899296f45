"""Criteria against values worked out by hand, and against each other where one is the limit of another."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.losses import (
    LDAM,
    BalancedSoftmax,
    ClassWeights,
    CrossEntropy,
    DotRegression,
    Focal,
    LogitAdjustment,
    SquaredError,
    VectorScaling,
)

COUNTS = (100, 10, 5, 1)
PROPERTY = settings(max_examples=25)
EVERY = {
    "cross entropy": CrossEntropy,
    "weighted": partial(CrossEntropy, weights=ClassWeights(0.99)),
    "smoothed": partial(CrossEntropy, label_smoothing=0.1),
    "balanced softmax": BalancedSoftmax,
    "logit adjustment": partial(LogitAdjustment, tau=1.5),
    "vector scaling": VectorScaling,
    "focal": partial(Focal, weights=ClassWeights(0.99)),
    "focal below 1": partial(Focal, gamma=0.5),
    "LDAM": partial(LDAM, scale=3.0),
    "squared error": partial(SquaredError, k=2.0, M=3.0),
    "dot regression": DotRegression,
}
SHIFT_INVARIANT = [
    name for name in EVERY if name not in ("squared error", "dot regression", "vector scaling")
]


def batch(seed=0):
    torch.manual_seed(seed)
    return 3 * torch.randn(20, 4), torch.arange(20) % 4


counts_of_four = st.lists(st.integers(1, 5000), min_size=4, max_size=4)
seeds = st.integers(0, 1000)


@PROPERTY
@given(count=st.integers(1, 10_000), seed=seeds)
def test_balanced_softmax_on_equal_counts_is_cross_entropy(count, seed):
    logits, labels = batch(seed)
    torch.testing.assert_close(BalancedSoftmax((count,) * 4)(logits, labels), F.cross_entropy(logits, labels))


def test_balanced_softmax_is_the_papers_formula_and_that_of_attraction_and_repulsion():
    logits, labels = batch()
    counts = torch.tensor(COUNTS).float()
    weighted = counts * logits.exp()
    expected = -(weighted[torch.arange(20), labels] / weighted.sum(1)).log().mean()
    torch.testing.assert_close(BalancedSoftmax(COUNTS)(logits, labels), expected)
    repulsion = (counts / counts[labels][:, None] * logits.exp()).sum(1)
    arb = -(logits.exp()[torch.arange(20), labels] / repulsion).log().mean()
    torch.testing.assert_close(BalancedSoftmax(COUNTS)(logits, labels), arb)


@pytest.mark.parametrize("criterion", [BalancedSoftmax, LogitAdjustment])
def test_a_rare_class_is_asked_for_a_larger_logit(criterion):
    logits = torch.zeros(2, 2)
    rare, frequent = (criterion((90, 10))(logits, torch.full((2,), label)) for label in (1, 0))
    assert float(rare) == pytest.approx(-math.log(0.1))
    assert float(frequent) == pytest.approx(-math.log(0.9))


@PROPERTY
@given(counts=counts_of_four, seed=seeds, tau=st.floats(0, 3))
def test_logit_adjustment_without_tau_with_tau_one_and_as_vector_scaling(counts, seed, tau):
    logits, labels = batch(seed)
    torch.testing.assert_close(LogitAdjustment(counts, 0)(logits, labels), F.cross_entropy(logits, labels))
    balanced = BalancedSoftmax(counts)(logits, labels)
    torch.testing.assert_close(LogitAdjustment(counts, 1)(logits, labels), balanced)
    adjusted = LogitAdjustment(counts, tau)(logits, labels)
    torch.testing.assert_close(VectorScaling(counts, gamma=0, tau=tau)(logits, labels), adjusted)


def test_vector_scaling_counted_by_hand():
    """Counts 16 and 1, gamma 1/2, tau 1: Delta = (1, 1/4), iota = log(16/17), log(1/17)."""
    value = VectorScaling((16, 1), gamma=0.5, tau=1.0)(torch.tensor([[1.0, 4.0]]), torch.tensor([1]))
    assert float(value) == pytest.approx(math.log(16 * math.e + math.e) - 1)
    tempered = VectorScaling((16, 1), gamma=0.5, tau=0.0)(torch.tensor([[1.0, 4.0]]), torch.tensor([1]))
    assert float(tempered) == pytest.approx(math.log(2))


def test_ldam_counted_by_hand():
    """Counts 16 and 1 have margins in the ratio 1 : 2, so 0.25 and 0.5."""
    criterion = LDAM((16, 1), max_margin=0.5, scale=2.0)
    logits = 2 * torch.tensor([[0.9, 0.1], [0.3, 0.6]])  # s times cosines
    first, second = (criterion(logits[i : i + 1], torch.tensor([i])) for i in (0, 1))
    assert float(first) == pytest.approx(math.log1p(math.exp(2 * (0.1 - (0.9 - 0.25)))))
    assert float(second) == pytest.approx(math.log1p(math.exp(2 * (0.3 - (0.6 - 0.5)))))


@PROPERTY
@given(counts=counts_of_four, seed=seeds)
def test_ldam_with_zero_margins_is_cross_entropy_and_margins_cost(counts, seed):
    logits, labels = batch(seed)
    plain = F.cross_entropy(logits, labels)
    torch.testing.assert_close(LDAM(counts, max_margin=0, scale=1)(logits, labels), plain)
    assert LDAM(counts, max_margin=0.5, scale=1)(logits, labels) > plain


def test_focal_counted_by_hand_and_without_gamma_cross_entropy():
    logits, labels = batch()
    p = logits.softmax(1)[torch.arange(20), labels]
    torch.testing.assert_close(Focal(COUNTS, 2.0)(logits, labels), -((1 - p) ** 2 * p.log()).mean())
    torch.testing.assert_close(Focal(COUNTS, 0.0)(logits, labels), F.cross_entropy(logits, labels))


def test_focal_has_a_gradient_where_a_sample_is_decided_beyond_all_digits():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    Focal((1, 1), gamma=0.5)(logits, torch.tensor([0])).backward()
    assert torch.equal(logits.grad, torch.zeros(1, 2))


def test_squared_error_counted_by_hand_and_plain():
    logits, labels = batch()
    value = SquaredError((1, 1), k=2.0, M=3.0)(torch.tensor([[1.0, 5.0]]), torch.tensor([0]))
    assert float(value) == (2 * (1 - 3) ** 2 + 5**2) / 2
    torch.testing.assert_close(
        SquaredError(COUNTS)(logits, labels), F.mse_loss(logits, F.one_hot(labels, 4).float())
    )


def test_dot_regression_is_zero_where_features_are_aligned_and_counted_by_hand():
    criterion = DotRegression((1, 1, 1), scale=2.0)
    assert criterion(torch.tensor([[2.0, -1.0, -1.0]]), torch.tensor([0])) == 0
    assert float(criterion(torch.tensor([[0.5, 7.0, 7.0]]), torch.tensor([0]))) == (0.5 - 2) ** 2 / 4


def test_cross_entropy_ignores_the_counts_and_smooths_labels():
    logits, labels = batch()
    assert CrossEntropy(COUNTS)(logits, labels) == F.cross_entropy(logits, labels)
    smooth = CrossEntropy(COUNTS, label_smoothing=0.1)(logits, labels)
    assert smooth == F.cross_entropy(logits, labels, label_smoothing=0.1)


@pytest.mark.parametrize("name", SHIFT_INVARIANT)
@PROPERTY
@given(shift=st.floats(-20, 20), seed=seeds)
def test_a_softmax_does_not_see_a_shift_of_all_logits(name, shift, seed):
    logits, labels = batch(seed)
    criterion = EVERY[name](COUNTS)
    torch.testing.assert_close(
        criterion(logits + shift, labels), criterion(logits, labels), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_those_of_finite_differences(name):
    logits, labels = batch()
    criterion = EVERY[name](COUNTS).double()
    assert torch.autograd.gradcheck(lambda z: criterion(z, labels), logits.double().requires_grad_())
    soft = torch.rand(20, 4).softmax(1).double()
    assert torch.autograd.gradcheck(lambda z: criterion(z, soft), logits.double().requires_grad_())


@pytest.mark.parametrize("name", EVERY)
def test_a_one_hot_label_is_the_label(name):
    logits, labels = batch()
    criterion = EVERY[name](COUNTS)
    torch.testing.assert_close(criterion(logits, F.one_hot(labels, 4).float()), criterion(logits, labels))


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("weighted", "focal")])
@PROPERTY
@given(seed=seeds, share=st.floats(0.01, 0.99))
def test_the_loss_of_mixed_labels_is_the_mixture_of_their_losses(name, seed, share):
    logits, labels = batch(seed)
    others = labels.roll(1)
    criterion = EVERY[name](COUNTS)
    mixed = share * F.one_hot(labels, 4) + (1 - share) * F.one_hot(others, 4)
    expected = share * criterion(logits, labels) + (1 - share) * criterion(logits, others)
    torch.testing.assert_close(criterion(logits, mixed), expected)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LogitAdjustment(COUNTS, tau=-1), "tau of the logit adjustment is -1, but it is at least 0"),
        (lambda: VectorScaling(COUNTS, gamma=-1), "gamma of the vector-scaling loss is -1"),
        (lambda: VectorScaling(COUNTS, tau=math.nan), "tau of the logit adjustment is nan"),
        (lambda: Focal(COUNTS, gamma=-0.1), "gamma of the focal loss is -0.1"),
        (lambda: LDAM(COUNTS, max_margin=-1), "max_margin is -1"),
        (lambda: LDAM(COUNTS, scale=0), "scale 0"),
        (lambda: SquaredError(COUNTS, k=0), "k and M of the squared error are 0"),
        (lambda: DotRegression(COUNTS, scale=0), "scale of the dot-regression loss is 0"),
        (lambda: CrossEntropy(COUNTS, label_smoothing=1.5), "label_smoothing is 1.5"),
        (lambda: CrossEntropy(COUNTS, weights=ClassWeights(1.5)), "beta of the class weights is 1.5"),
        (lambda: Focal(COUNTS, weights=ClassWeights(after=1)), "start after 1 of the epochs"),
        (lambda: BalancedSoftmax((3, 0)), "every class has a training image"),
    ],
)
def test_an_argument_out_of_its_range_is_refused_in_one_sentence(make, words):
    with pytest.raises(UserError, match=words) as refusal:
        make()
    assert "\n" not in str(refusal.value)
