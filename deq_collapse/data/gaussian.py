"""Vectors around known means, for tests and theory."""

from typing import Any

import torch
from torch import Tensor

from deq_collapse.data.draw import Purpose, uniform
from deq_collapse.data.source import Source, Split
from deq_collapse.errors import UserError

GRID = 2.0**16


class GaussianMixture(Source):
    """Class c is normally distributed with mean `means[c]` and covariance `covariances[c]`, both known.

    Samples are vectors, float32 (N, d), class by class, the same on every machine: they are rounded to
    multiples of 2^-16, which hides the order in which a processor adds.

    Args:
        num_classes: K.
        dimension: d.
        means: (K, d); None draws K directions by `seed` and scales them to length `radius`.
        covariances: a number, the variance in every direction; or (d, d), of all classes; or (K, d, d). Each
            matrix is symmetric and positive semi-definite.
        radius: length of the means, if drawn.
        train_images: training samples per class.
        test_images: test samples per class.
        seed: of means and samples, not negative.

    Attributes:
        means: float64 (K, d).
        covariances: float64 (K, d, d).

    Raises:
        UserError: if an argument is out of range, or shapes do not fit.
    """

    name = "gaussian_mixture"

    def __init__(
        self,
        num_classes: int = 10,
        dimension: int = 32,
        means: list[list[float]] | None = None,
        covariances: float | list[list[float]] | list[list[list[float]]] = 0.01,
        radius: float = 1.0,
        train_images: int = 500,
        test_images: int = 100,
        seed: int = 0,
    ) -> None:
        if min(num_classes, dimension, train_images, test_images) < 1 or seed < 0 or not radius > 0:
            raise UserError(
                "the numbers of classes, dimensions and samples of a Gaussian mixture are at least 1, its"
                " seed is not negative, and its radius above 0"
            )
        self.images = {"train": train_images, "test": test_images}
        self.seed = seed
        shape = (num_classes, dimension)
        if means is None:
            directions = self._normal(0, num_classes * dimension).view(shape)
            self.means = radius * directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)
        else:
            self.means = _table(means, shape, "means")
        identity = torch.eye(dimension, dtype=torch.float64)
        matrices = covariances * identity if isinstance(covariances, (int, float)) else covariances
        self.covariances = _table(matrices, (*shape, dimension), "covariances")
        self._roots = _square_roots(self.covariances)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The numbers 0..K-1."""
        return tuple(str(c) for c in range(len(self.means)))

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        """Samples float32 (K n, d) and labels (K n,)."""
        classes, dimension = self.means.shape
        count = self.images[split]
        normal = self._normal(1 if split == "train" else 2, classes * count * dimension)
        samples = normal.view(classes, count, dimension) @ self._roots + self.means[:, None]
        labels = torch.arange(classes).repeat_interleave(count)
        return samples.mul(GRID).round().div(GRID).float().flatten(0, 1), labels

    def _normal(self, stream: int, count: int) -> Tensor:
        normal: Tensor = torch.special.ndtri(uniform(count, Purpose.SAMPLES, self.seed, stream))
        return normal


def _table(values: Any, shape: tuple[int, ...], name: str) -> Tensor:
    try:
        table = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the {name} of a Gaussian mixture are no table of numbers: {error}") from error
    if table.ndim < 2 or table.shape != shape[-table.ndim :]:
        raise UserError(
            f"the {name} of a Gaussian mixture are a table of shape {tuple(table.shape)}, but it is"
            f" {' or '.join(str(shape[-axes:]) for axes in range(len(shape), 1, -1))}"
        )
    return table.expand(shape)


def _square_roots(covariances: Tensor) -> Tensor:
    """Symmetric square roots, (K, d, d)."""
    values, vectors = torch.linalg.eigh(covariances)
    symmetric = torch.allclose(covariances, covariances.mT) and covariances.isfinite().all()
    if not symmetric or values.min() < -1e-9 * values.abs().max():
        raise UserError("the covariances of a Gaussian mixture are symmetric and positive semi-definite")
    roots: Tensor = (vectors * values.clamp(min=0).sqrt().unsqueeze(-2)) @ vectors.mT
    return roots
