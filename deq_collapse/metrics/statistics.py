"""Class statistics: everything that the formulas of neural collapse need to know about a set of features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from deq_collapse.metrics.inputs import (
    Array,
    check_batch,
    check_finite,
    check_labels,
    check_sizes,
    tensor_of,
)
from deq_collapse.metrics.moments import EXTRA, Moments, add_products, mirror_, strips

# Number of pairs of close means subtracted at a time, which bounds the memory.
PAIRS = 4096
# Share of the largest eigenvalue below which an eigenvalue has lost more than six of float64's sixteen
# digits.
SMALL = 1e-6
Centre = Literal["classes", "samples"]
Weighting = Literal["samples", "classes"]


def gram(rows: Tensor, origin: Tensor | None = None) -> Tensor:
    """R R^T, (K, K), of the rows minus an origin, at little more than half the cost of the full product.

    Args:
        rows: (K, d).
        origin: (d,); None for 0. It is subtracted from some columns at a time, without another (K, d) matrix.

    """
    upper = rows.new_zeros(len(rows), len(rows))
    for columns in strips(rows.shape[1]):
        part = rows[:, columns] if origin is None else rows[:, columns] - origin[columns]
        add_products(upper, part.T, part.T)
    return mirror_(upper)


@dataclass(frozen=True)
class Scatter:
    """Sigma_W in the form in which it was summed, because another (d, d) matrix would double the memory.

    Attributes:
        upper: (d, d), valid on and above the diagonal: `total` times the covariance around `offsets`.
        total: scalar.
        offsets: returns rows (K', d) of some classes, for which Sigma_W = upper / total - sum_c shares_c
            offsets_c offsets_c^T; None if there are none.
        shares: (K,).

    """

    upper: Tensor
    total: Tensor
    shares: Tensor
    offsets: Callable[[slice], Tensor] | None = None

    def dense(self) -> Tensor:
        """Sigma_W, (d, d)."""
        within = self.upper / self.total
        if self.offsets is not None:
            scaled = self.shares.sqrt()[:, None] * self.offsets(slice(len(self.shares)))
            add_products(within, scaled, scaled, alpha=-1)
        return mirror_(within)

    def along(self, rows: Tensor) -> Tensor:
        """sum_j rows_j Sigma_W rows_j^T, a scalar, for rows (r, d): the trace of Sigma_W rows^T rows."""
        total = self.upper.new_zeros(())
        for strip in strips(len(self.upper)):
            product = rows[:, strip].T @ rows[:, strip.start :]
            product.mul_(self.upper[strip, strip.start :])
            total += 2 * product.triu_().sum() - product.diagonal().sum()
        total /= self.total
        if self.offsets is not None:
            for classes in strips(len(self.shares)):
                steps = self.offsets(classes) @ rows.T
                total -= self.shares[classes] @ steps.square_().sum(1)
        return total.clamp(min=0)


@dataclass(frozen=True)
class ClassStatistics:
    """Counts, means and within-class scatter of features h_i with labels y_i; float64.

    Attributes:
        counts: (K,) samples per class; a class without samples enters no formula.
        means: (K, d) class means mu_c.
        variances: (K,) mean squared distance v_c of a class's samples to its mean.
        scatter: yields Sigma_W = sum_i a_i (h_i - mu_yi)(h_i - mu_yi)^T; None if it was not accumulated.
        centre: the global mean mu_G is that of the class means ("classes", Papyan 2020) or of all "samples".
        weighting: Sigma_W weights all "samples" equally, a_i = 1/N (Papyan 2020), or all "classes", a_i =
            1/(K n_yi).

    """

    counts: Tensor
    means: Tensor
    variances: Tensor
    scatter: Scatter | None
    centre: Centre = "classes"
    weighting: Weighting = "samples"

    @classmethod
    def from_features(
        cls,
        features: Tensor | Array,
        labels: Tensor | Array | Sequence[int],
        num_classes: int,
        centre: Centre = "classes",
        weighting: Weighting = "samples",
    ) -> "ClassStatistics":
        """Compute in two passes from all features (N, d) and labels (N,), in float64.

        Raises:
            ValueError: for shapes or types that do not fit, labels out of range, features that are not
                finite, and if fewer than two classes have samples.

        """
        h, y = tensor_of(features), tensor_of(labels)
        width = getattr(h, "shape", (1,))[-1]
        check_sizes(num_classes, width)
        check_batch(h, y, None, None, num_classes, width)
        check_labels(y, num_classes)
        check_finite(h)
        h, y = h.detach().double(), y.long()
        counts = torch.bincount(y, minlength=num_classes).double()
        shares = counts.clamp(min=1)
        zeros = h.new_zeros(num_classes, h.shape[1])
        means = zeros.index_add(0, y, h) / shares[:, None]
        # A second round removes the rounding of the first sum from the mean.
        means += zeros.index_add(0, y, h - means[y]) / shares[:, None]
        residuals = h - means[y]
        variances = torch.zeros_like(counts).index_add(0, y, residuals.square().sum(1)) / shares
        stats = cls(counts, means, variances, None, centre, weighting).checked()
        weights = (stats.weights / shares)[y]
        within = (weights[:, None] * residuals).T @ residuals
        return replace(stats, scatter=Scatter(within, counts.new_ones(()), counts))

    @classmethod
    def from_moments(
        cls, moments: Moments, centre: Centre = "classes", weighting: Weighting = "samples"
    ) -> "ClassStatistics":
        """Derive them from one-pass moments, which hold no Sigma_W that weights classes equally.

        `scatter` is a view of the moments, valid until something is added to them.
        """
        counts, squares = moments.counts[:-EXTRA].clone(), moments.squares[:-EXTRA]
        moved = torch.cat([moments.offsets(rows).square_().sum(1) for rows in strips(len(counts))])
        variances = (squares / counts.clamp(min=1) - moved).clamp(min=0)
        scatter = None
        if moments.scatter.numel():
            total = counts.sum().clamp(min=1)
            scatter = Scatter(moments.scatter, total, counts / total, moments.offsets)
        return cls(counts, moments.means(slice(-EXTRA)), variances, scatter, centre, weighting)

    def checked(self) -> "ClassStatistics":
        """Return self, or raise ValueError if fewer than two classes have samples."""
        if int(self.present.sum()) < 2:
            seen = int(self.present.sum())
            raise ValueError(f"neural collapse compares classes: at least 2 need samples, {seen} had any")
        return self

    @cached_property
    def present(self) -> Tensor:
        """(K,) bool: the classes that have samples."""
        return self.counts > 0

    @property
    def within(self) -> Tensor:
        """Sigma_W, (d, d).

        Raises:
            ValueError: if it was not accumulated.

        """
        if self.scatter is None:
            raise ValueError(
                "nc1 needs the within-class covariance, which these statistics were made without"
            )
        return self.scatter.dense()

    @property
    def weights(self) -> Tensor:
        """(K,) weight of each class in Sigma_W; they sum to 1."""
        shares = self.counts if self.weighting == "samples" else self.present.to(self.counts)
        return shares / shares.sum()

    def seen(self, rows: Tensor) -> Tensor:
        """Return the rows of the classes present; `rows` itself if all are."""
        return rows if bool(self.present.all()) else rows[self.present]

    @property
    def global_mean(self) -> Tensor:
        """mu_G, (d,)."""
        means = self.seen(self.means)
        if self.centre == "samples":
            return self.counts[self.present] @ means / self.counts.sum()
        return means.mean(0)

    @property
    def centred(self) -> Tensor:
        """M, rows mu_c - mu_G of the classes present, (K', d); computed anew: it is as large as the means."""
        return self.seen(self.means) - self.global_mean

    @cached_property
    def gram(self) -> Tensor:
        """M M^T, (K', K')."""
        return gram(self.seen(self.means), self.global_mean)

    @property
    def distances(self) -> Tensor:
        """||mu_a - mu_b|| of the classes present, (K', K'), computed anew; exactly 0 on the diagonal."""
        sizes = self.gram.diagonal()
        squared = (sizes[:, None] + sizes).sub_(self.gram, alpha=2).clamp_(min=0)
        # The expanded square cancels for means close to each other: those pairs are subtracted.
        close = (squared < (sizes[:, None] + sizes).mul_(1e-4)).triu_(1).nonzero()
        if len(close):
            M = self.centred
            for pairs in torch.split(close, PAIRS):
                a, b = pairs.T
                squared[a, b] = squared[b, a] = (M[a] - M[b]).square().sum(1)
        return squared.fill_diagonal_(0).sqrt_()

    @cached_property
    def between(self) -> tuple[Tensor, Tensor]:
        """Non-zero eigenvalues (r,) of M M^T = K Sigma_B and their unit eigenvectors as columns, (K', r).

        At most min(K'-1, d), and only those whose roots exceed the `resolution` of the means: two means
        farther apart than that span a direction.
        """
        values, vectors = torch.linalg.eigh(self.gram)
        rank = min(len(self.centred) - 1, self.centred.shape[1])
        values, vectors = values[-rank:], vectors[:, -rank:]
        if values[0] < SMALL * values[-1]:
            # The error of eigenvalues is eps times the largest one; that of singular values is eps times the
            # largest root.
            rows, roots, _ = torch.linalg.svd(self.centred, full_matrices=False)
            values, vectors = roots[:rank].square().flip(0), rows[:, :rank].flip(1)
        below = int((values <= self.resolution**2 / 2).sum())
        return values[below:], vectors[:, below:]

    def directions(self, those: slice = slice(None)) -> Tensor:
        """Unit eigenvectors of Sigma_B in feature space, (r, d), ordered as in `between`, or some of them."""
        values, vectors = self.between
        rows, origin = self.seen(self.means), self.global_mean
        found = rows.new_empty(len(values[those]), rows.shape[1])
        for columns in strips(rows.shape[1]):  # without another matrix of the size of the means
            found[:, columns] = vectors[:, those].T @ (rows[:, columns] - origin[columns])
        return found.div_(values[those].sqrt()[:, None])

    @property
    def resolution(self) -> float:
        """Distance below which two class means cannot be told apart in float64."""
        return 64 * torch.finfo(torch.float64).eps * float(self.means.norm(dim=1).max())

    def around(self, means: "Tensor | ClassStatistics") -> "ClassStatistics":
        """Describe the same samples around the means of others, e.g. test features around train means.

        Args:
            means: the statistics that hold them, or (K, d), in which a row of zeros marks an absent class.

        Raises:
            ValueError: if a class with samples has no mean there.

        """
        known = means.present if isinstance(means, ClassStatistics) else (means != 0).any(1)
        centres = means.means if isinstance(means, ClassStatistics) else means.to(self.means)
        lacking = (self.present & ~known).nonzero().flatten().tolist()
        if lacking:
            raise ValueError(
                f"samples of classes {lacking} have no mean to be described around; leave them out first, or "
                "hand over the statistics if a mean is truly zero"
            )
        offset = torch.where(self.present[:, None], self.means - centres, 0)
        scatter = self.scatter
        if scatter is not None:
            within = self.within + (self.weights[:, None] * offset).T @ offset
            scatter = Scatter(within, scatter.total.new_ones(()), self.counts)
        variances = self.variances + offset.square().sum(1)
        return replace(self, means=centres, variances=variances, scatter=scatter)
