"""Classifiers: a frame that is an ETF to rounding, cosines, and what the metrics see of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.losses import LDAM, CrossEntropy, DotRegression
from deq_collapse.metrics import NeuralCollapse
from deq_collapse.models import CosineClassifier, FixedETF, GlobalAverage, Network
from deq_collapse.models.classifiers import linear_map


@settings(max_examples=25)
@given(K=st.integers(2, 20), spare=st.integers(-1, 30), scale=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_the_fixed_frame_is_a_simplex_etf_at_every_width_that_holds_one(K, spare, scale, seed):
    W = FixedETF(K + spare, K, scale=scale, seed=seed).weight.double()
    ideal = scale**2 * (K * torch.eye(K) - 1).double() / (K - 1)
    torch.testing.assert_close(W @ W.T, ideal, rtol=1e-5, atol=1e-5 * scale**2)


def test_the_fixed_frame_is_drawn_by_its_seed_alone_and_not_trained():
    torch.manual_seed(1)
    first = FixedETF(8, 4, seed=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first.weight, FixedETF(8, 4, seed=3).weight)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.allclose(first.weight, FixedETF(8, 4, seed=4).weight)
    before = first.weight.clone()
    optimizer = torch.optim.SGD(first.parameters(), lr=1.0, weight_decay=0.1)
    h = torch.randn(5, 8, requires_grad=True)
    first(h).sum().backward()
    optimizer.step()
    assert torch.equal(first.weight, before)
    assert h.grad.abs().sum() > 0


def test_an_etf_that_no_width_holds_is_refused():
    with pytest.raises(UserError, match="of 10 classes needs at least 9 features, but there are 8"):
        FixedETF(8, 10)


@pytest.mark.parametrize("kind", [CosineClassifier, FixedETF])
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_above_0_is_refused(kind, scale):
    with pytest.raises(UserError, match="above 0"):
        kind(8, 4, scale=scale)


def test_logits_of_a_cosine_classifier_are_its_scale_times_cosines_at_any_length():
    classifier = CosineClassifier(8, 4, scale=3.0)
    h = torch.randn(5, 8)
    expected = 3 * F.cosine_similarity(h[:, None], classifier.directions[None], dim=2)
    torch.testing.assert_close(classifier(h), expected)
    torch.testing.assert_close(classifier(100 * h), expected)
    nn.init.normal_(classifier.directions, std=100)
    torch.testing.assert_close(classifier.weight.norm(dim=1), torch.full((4,), 3.0))


def test_the_scale_learns_only_where_it_is_told_to():
    assert [CosineClassifier(8, 4, learn_scale=learns).scale.requires_grad for learns in (True, False)] == [
        True,
        False,
    ]
    learning = CosineClassifier(8, 4, learn_scale=True)
    learning(torch.randn(3, 8))[:, 0].sum().backward()
    assert learning.scale.grad != 0


def network(classifier):
    return Network((3, 4, 4), 5, lambda _: nn.Identity(), lambda _: nn.Identity(), nn.Flatten(), classifier)


def skewed(module):
    """Rows of very different lengths, on which the decisions of W h and of its cosines differ."""
    with torch.no_grad():
        module.directions.mul_(torch.tensor([1.0, 5.0, 0.1, 2.0, 10.0])[:, None])
    return module


@pytest.mark.parametrize(
    "classifier",
    [
        lambda d, K: skewed(CosineClassifier(d, K)),
        FixedETF,
        lambda d, K: FixedETF(d, K, normalise=True),
        nn.Linear,
    ],
)
def test_the_linear_map_measured_makes_the_decisions_that_the_classifier_makes(classifier):
    torch.manual_seed(0)
    net = network(classifier)
    x, y = torch.randn(300, 3, 4, 4), torch.arange(300) % 5
    h = net.features(x)
    weight, bias = linear_map(net.classifier)
    torch.testing.assert_close(F.linear(h, weight, bias), net(x), rtol=1e-4, atol=1e-5)
    metric = NeuralCollapse(5, net.num_features, metrics=["nc4"])
    metric.update(h, y, weight, bias)
    means = torch.stack([h[y == c].mean(0) for c in range(5)])
    nearest = torch.cdist(h, means).argmin(1)
    disagree = (net(x).argmax(1) != nearest).double().mean()
    assert float(metric.compute()["nc4"]) == pytest.approx(float(disagree))


def test_features_are_what_enters_the_linear_map():
    x = torch.randn(10, 3, 4, 4)
    torch.testing.assert_close(network(CosineClassifier).features(x).norm(dim=1), torch.ones(10))
    assert torch.equal(network(FixedETF).features(x), x.flatten(1))
    assert torch.equal(network(nn.Linear).features(x), x.flatten(1))


def test_a_classifier_without_weight_is_refused():
    with pytest.raises(UserError, match="GlobalAverage is no classifier"):
        linear_map(GlobalAverage())


COUNTS = (30, 20, 10, 5)


def fixed_but_no_etf(d, K):
    classifier = CosineClassifier(d, K, scale=1.0)
    return classifier.requires_grad_(False)


@pytest.mark.parametrize(
    ("criterion", "classifier", "fits"),
    [
        (LDAM(COUNTS), CosineClassifier(8, 4), True),
        (LDAM(COUNTS), FixedETF(8, 4, scale=30, normalise=True), True),
        (LDAM(COUNTS), nn.Linear(8, 4), False),
        (LDAM(COUNTS), CosineClassifier(8, 4, scale=16), False),
        (LDAM(COUNTS), CosineClassifier(8, 4, learn_scale=True), False),
        (DotRegression(COUNTS), FixedETF(8, 4, normalise=True), True),
        (DotRegression(COUNTS, scale=2), FixedETF(8, 4, scale=2, normalise=True), True),
        (DotRegression(COUNTS), FixedETF(8, 4), False),
        (DotRegression(COUNTS), FixedETF(8, 4, scale=2, normalise=True), False),
        (DotRegression(COUNTS), nn.Linear(8, 4), False),
        (DotRegression(COUNTS), CosineClassifier(8, 4, scale=1), False),
        (DotRegression(COUNTS), fixed_but_no_etf(8, 4), False),
        (CrossEntropy(COUNTS), nn.Linear(8, 4), True),
    ],
)
def test_a_criterion_takes_only_a_classifier_whose_logits_it_is_meant_for(criterion, classifier, fits):
    if fits:
        criterion.check(classifier)
    else:
        with pytest.raises(UserError, match=r"needs .* instead of") as refusal:
            criterion.check(classifier)
        assert "\n" not in str(refusal.value)


def test_dot_regression_turns_features_towards_the_frame():
    """By ever smaller steps: the loss is of fourth order in the angle."""
    torch.manual_seed(0)
    classifier, criterion = FixedETF(8, 4, normalise=True), DotRegression(COUNTS)
    h, labels = torch.randn(12, 8, requires_grad=True), torch.arange(12) % 4
    optimizer = torch.optim.SGD([h], lr=10.0)
    for _ in range(300):
        optimizer.zero_grad()
        criterion(classifier(h), labels).backward()
        optimizer.step()
    cosines = (F.normalize(h.detach()) * classifier.weight[labels]).sum(1)
    assert cosines.min() > 0.95
