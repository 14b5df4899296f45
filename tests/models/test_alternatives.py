"""The tau-normalised classifier and the nearest class mean, on features where the answers are plain."""

import pytest
import torch

from deq_collapse.models.alternatives import Alternatives, decide_nearest_mean, decide_tau_normalised

# Class 0 has a row ten times as long as class 1's, as frequent classes have.
WEIGHT = torch.tensor([[10.0, 0.0], [0.0, 1.0]])
H = torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.01, 1.0]])


@pytest.mark.parametrize(("tau", "expected"), [(0.0, [0, 0, 1]), (0.5, [0, 0, 1]), (1.0, [0, 1, 1])])
def test_tau_takes_the_length_of_the_rows_out_of_the_decision(tau, expected):
    assert decide_tau_normalised(H, WEIGHT, tau).tolist() == expected


def test_with_tau_0_the_decision_is_the_classifiers_without_bias():
    torch.manual_seed(0)
    h, weight = torch.randn(50, 6), torch.randn(4, 6)
    assert torch.equal(decide_tau_normalised(h, weight, 0.0), (h @ weight.T).argmax(1))


def test_the_nearest_mean_is_nearest_by_angle():
    means = torch.tensor([[10.0, 0.0], [0.1, 0.1]])
    assert decide_nearest_mean(torch.tensor([[9.0, 8.0], [9.0, 1.0]]), means).tolist() == [1, 0]


def test_half_precision_around_it_does_not_round_the_decision():
    """Cosines near 1 differ by less than a step of bfloat16, and ties go to the first classes, the frequent
    ones.
    """
    torch.manual_seed(0)
    means = 1 + 0.05 * torch.randn(10, 64)
    h = (means[torch.arange(400) % 10] + 0.1 * torch.randn(400, 64)).bfloat16()
    exact = torch.nn.functional.normalize(means.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nearest, tau = decide_nearest_mean(h, means), decide_tau_normalised(h, means, 1.0)
        rounded = torch.nn.functional.linear(h, exact.bfloat16()).argmax(1)
    expected = (h.double() @ exact.T).argmax(1)
    assert (nearest == expected).all()
    assert (tau == expected).all()
    assert (rounded != expected).float().mean() > 0.1


def test_accuracies_add_up_over_batches_and_start_anew_after_a_reset():
    alternatives = Alternatives(2, tau=1.0)
    labels = torch.tensor([0, 0, 1])
    means = torch.tensor([[1.0, 2.0], [-1.0, 0.0]])  # all of H point to the first
    assert alternatives.compute() == {}
    for rows in (slice(0, 2), slice(2, 3)):
        alternatives.update(H[rows], labels[rows], WEIGHT, means)
    values = {name: float(value) for name, value in alternatives.compute().items()}
    assert values == pytest.approx({"accuracy_tau": 2 / 3, "accuracy_ncm": 2 / 3})
    alternatives.update(H[2:], labels[2:], WEIGHT, means)  # right by its row, wrong by its mean
    values = {name: float(value) for name, value in alternatives.compute().items()}
    assert values == pytest.approx({"accuracy_tau": 3 / 4, "accuracy_ncm": 2 / 4})
    alternatives.reset()
    alternatives.update(H[:1], labels[:1], WEIGHT, None)
    assert {name: float(value) for name, value in alternatives.compute().items()} == {"accuracy_tau": 1.0}
