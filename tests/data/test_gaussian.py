"""A mixture whose means and covariances are known has them."""

import hashlib

import pytest
import torch

from deq_collapse.data import Balanced, CollapseDataModule, GaussianMixture
from deq_collapse.errors import UserError

MEANS = [[3.0, 0.0], [0.0, -2.0], [1.0, 1.0]]
COVARIANCES = [[[1.0, 0.5], [0.5, 2.0]], [[0.1, 0.0], [0.0, 0.0]], [[4.0, -1.0], [-1.0, 1.0]]]


def test_samples_have_the_means_and_covariances_asked_for():
    source = GaussianMixture(3, 2, MEANS, COVARIANCES, train_images=40_000)
    x, y = source.train
    assert y.bincount().tolist() == [40_000] * 3
    for c in range(3):
        torch.testing.assert_close(x[y == c].mean(0).double(), source.means[c], atol=0.05, rtol=0)
        torch.testing.assert_close(x[y == c].T.cov().double(), source.covariances[c], atol=0.1, rtol=0)
    white = (x[y == 0].double() - source.means[0]) @ torch.linalg.cholesky(source.covariances[0]).inverse().T
    assert abs(float(white.pow(4).mean()) - 3) < 0.2  # of a normal distribution


@pytest.mark.parametrize("shared", [0.25, [[0.25, 0.0], [0.0, 0.25]], [[[0.25, 0.0], [0.0, 0.25]]] * 3])
def test_a_covariance_may_be_one_number_one_matrix_or_one_per_class(shared):
    source = GaussianMixture(3, 2, MEANS, shared)
    expected = GaussianMixture(3, 2, MEANS, 0.25)
    assert torch.equal(source.covariances, 0.25 * torch.eye(2).double().expand(3, 2, 2))
    torch.testing.assert_close(source.train.images, expected.train.images)


def test_means_that_are_drawn_have_the_radius_and_change_with_the_seed():
    source = GaussianMixture(5, 7, radius=3.0)
    torch.testing.assert_close(source.means.norm(dim=1), torch.full((5,), 3.0).double())
    assert not torch.equal(source.means, GaussianMixture(5, 7, radius=3.0, seed=1).means)


def test_the_samples_are_the_same_for_ever_and_those_of_the_splits_differ():
    source = GaussianMixture(4, 3, train_images=50, test_images=50)
    assert not torch.equal(source.train.images, source.test.images)
    # Written down once: another sum means other samples, and no result before it can be repeated.
    assert hashlib.sha256(source.train.images.numpy().tobytes()).hexdigest() == (
        "d84e8ee8e1173dc8c11832150931ca1cf0a863e68bba1b40de1cfec4ddf1e005"
    )


def test_without_variance_all_samples_are_their_means():
    source = GaussianMixture(3, 2, MEANS, 0.0)
    assert torch.equal(source.train.images, source.means.float()[source.train.labels])


def test_a_network_is_given_the_vectors_as_they_are():
    source = GaussianMixture(3, 2, MEANS)
    data = CollapseDataModule(source, Balanced(7), batch_size=10)
    assert data.image_shape == (2,)
    assert data.class_counts == (7, 7, 7)
    x = torch.cat([x for x, _ in data.val_dataloader()["train"]])
    assert torch.equal(x, source.train.images[data.indices])
    assert torch.equal(data.normalise(x), x)
    assert torch.cat([y for _, y in data.train_dataloader()]).bincount().tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_classes": 0}, "at least 1"),
        ({"train_images": 0}, "at least 1"),
        ({"seed": -1}, "seed is not negative"),
        ({"radius": 0.0}, "radius above 0"),
        ({"means": [[1.0, 2.0]]}, r"the means of .* of shape \(1, 2\), but it is \(3, 2\)$"),
        ({"means": [[1.0], [2.0, 3.0], [4.0]]}, r"the means of .* no table of numbers"),
        ({"covariances": [[1.0]]}, r"of shape \(1, 1\), but it is \(3, 2, 2\) or \(2, 2\)$"),
        ({"covariances": [[1.0, 0.0], [0.5, 1.0]]}, "symmetric and positive semi-definite"),
        ({"covariances": [[1.0, 2.0], [2.0, 1.0]]}, "symmetric and positive semi-definite"),
        ({"covariances": -1.0}, "symmetric and positive semi-definite"),
        ({"covariances": float("nan")}, "symmetric and positive semi-definite"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        GaussianMixture(**{"num_classes": 3, "dimension": 2} | arguments)
