"""Measures of a split: accuracies counted by hand, and batches that add up to the whole."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deq_collapse.errors import UserError
from deq_collapse.metrics import NeuralCollapse
from deq_collapse.models.measures import SplitMeasures, accuracies, class_groups
from deq_collapse.models.solution import Solve


def test_accuracies_counted_by_hand():
    confusion = torch.tensor([[6, 2, 0], [1, 1, 0], [2, 0, 0]])  # rows: true classes of 8, 2 and 2 samples
    values = {
        name: float(value) for name, value in accuracies(confusion, {"first": (0,), "rest": (1, 2)}).items()
    }
    assert values == pytest.approx(
        {
            "accuracy": 7 / 12,
            "error": 5 / 12,
            "balanced_accuracy": (6 / 8 + 1 / 2 + 0) / 3,
            "accuracy_first": 6 / 8,
            "accuracy_rest": 1 / 4,
        }
    )


def test_a_class_without_samples_is_left_out_of_the_balanced_accuracy():
    values = accuracies(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), {"absent": (2,)})
    assert values["balanced_accuracy"] == (0.75 + 1) / 2
    assert math.isnan(values["accuracy_absent"])


def test_groups_are_majority_and_minority_under_step_imbalance_alone():
    assert class_groups((500, 5, 500, 5), majority=(0, 2)) == {"majority": (0, 2), "minority": (1, 3)}


@pytest.mark.parametrize(
    ("counts", "thresholds", "expected"),
    [
        ((500, 101, 100, 20, 19), {}, {"many": (0, 1), "medium": (2, 3), "few": (4,)}),
        ((500, 5), {}, {"many": (0,), "few": (1,)}),
        ((500, 400, 300), {"many": 350, "few": 350}, {"many": (0, 1), "few": (2,)}),
        ((500, 400, 300), {}, {}),
        ((7, 7, 7), {}, {}),
    ],
)
def test_groups_of_a_long_tail_are_those_that_counts_and_thresholds_make(counts, thresholds, expected):
    """A threshold belongs to the medium classes; one group of all classes would say nothing."""
    assert class_groups(counts, None, **thresholds) == expected


def test_thresholds_the_wrong_way_round_are_refused():
    with pytest.raises(UserError, match="many=10 and few=20, but 0 <= few <= many"):
        class_groups((5, 5), None, many=10, few=20)


def test_error_is_exactly_zero_when_all_are_right():
    """The terminal phase begins with a comparison to 0."""
    assert accuracies(torch.diag(torch.tensor([139, 7, 3])), {})["error"] == 0


def data():
    torch.manual_seed(0)
    classifier = nn.Linear(4, 3)
    h, y = torch.randn(50, 4), torch.arange(50) % 3
    return classifier, h, y


def test_uneven_batches_add_up_to_the_whole_split():
    classifier, h, y = data()
    measures = SplitMeasures(3, 4, (17, 17, 16), (0,), None, {"majority": (0,)})
    for part in torch.arange(50).split(17):
        logits = classifier(h[part])
        measures.update(h[part], logits, y[part], F.cross_entropy(logits, y[part]), classifier, None)
    values = measures.compute()
    assert "residual" not in values
    torch.testing.assert_close(values["loss"], F.cross_entropy(classifier(h), y), check_dtype=False)
    torch.testing.assert_close(
        values["accuracy"], (classifier(h).argmax(1) == y).double().mean(), check_dtype=False
    )
    plain = NeuralCollapse(3, 4, majority=(0,), class_counts=(17, 17, 16))
    plain.update(h, y, classifier.weight, classifier.bias)
    for name, value in plain.compute().items():
        torch.testing.assert_close(values[name], value, rtol=1e-6, atol=1e-9)


def test_the_loss_is_summed_in_float64_wherever_it_was_moved():
    classifier, h, y = data()
    measures = SplitMeasures(3, 4, (17, 17, 16), None, ("nc1",), {}).to("cpu")
    third = torch.tensor(1 / 3, dtype=torch.float64)
    for _ in range(7):
        measures.update(h, classifier(h), y, third, classifier, None)
    assert float(measures.compute()["loss"]) == pytest.approx(1 / 3, rel=1e-15)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_and_a_residual_that_are_no_number_count_as_infinite(broken):
    """A sample that left the numbers must not be left out of a mean or of a maximum."""
    classifier, h, y = data()
    measures = SplitMeasures(3, 4, (17, 17, 16), None, ("nc1",), {})
    for value in (1.0, broken, 2.0):
        solve = Solve(10, torch.tensor([1e-6, value, 1e-6]), torch.zeros(3, dtype=torch.bool))
        measures.update(h[:3], classifier(h[:3]), y[:3], torch.tensor(value), classifier, solve)
    values = measures.compute()
    assert values["loss"] == math.inf
    assert values["residual"] == math.inf


def test_the_worst_residual_and_the_mean_evaluations_of_a_solver_are_told():
    classifier, h, y = data()
    measures = SplitMeasures(3, 4, (17, 17, 16), None, None, {})
    for part, evaluations, residual in ((slice(0, 40), 10, 1e-6), (slice(40, 50), 20, 3e-5)):
        logits = classifier(h[part])
        solve = Solve(evaluations, torch.full((len(logits),), residual), torch.zeros(len(logits), dtype=bool))
        measures.update(h[part], logits, y[part], F.cross_entropy(logits, y[part]), classifier, solve)
    values = measures.compute()
    assert float(values["residual"]) == pytest.approx(3e-5)
    assert float(values["evaluations"]) == pytest.approx((40 * 10 + 10 * 20) / 50)


def test_after_a_reset_nothing_of_the_old_split_is_left():
    classifier, h, y = data()
    used, fresh = (SplitMeasures(3, 4, (17, 17, 16), None, None, {}) for _ in range(2))
    used.update(h, 9 * classifier(h), y, torch.tensor(5.0), classifier, None)
    used.reset()
    for measures in (used, fresh):
        measures.update(h, classifier(h), y, torch.tensor(1.0), classifier, None)
    torch.testing.assert_close(used.compute(), fresh.compute(), rtol=0, atol=0)


def test_a_classifier_without_bias_is_measured():
    _, h, y = data()
    classifier = nn.Linear(4, 3, bias=False)
    measures = SplitMeasures(3, 4, (17, 17, 16), None, ("nc1", "nc4"), {})
    measures.update(h, classifier(h), y, torch.tensor(1.0), classifier, None)
    assert {"nc1", "nc4"} <= measures.compute().keys()


def test_the_decays_of_a_run_set_the_targets_of_orthogonal_frames():
    classifier, h, y = data()
    names, decays = ("gof_means", "relu_ce_means"), (1e-2, 1e-2)
    measures = SplitMeasures(3, 4, (30, 15, 5), None, names, {}, decays)
    measures.update(h, classifier(h), y, torch.tensor(1.0), classifier, None)
    plain = NeuralCollapse(3, 4, names, class_counts=(30, 15, 5), decays=decays)
    plain.update(h, y)
    values, limit = measures.compute(), SplitMeasures(3, 4, (30, 15, 5), None, names, {})
    limit.update(h, classifier(h), y, torch.tensor(1.0), classifier, None)
    for name, value in plain.compute().items():
        assert float(values[name]) == float(value) != float(limit.compute()[name])
