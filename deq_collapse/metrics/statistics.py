"""Class statistics: all that the formulas of neural collapse need to know about a set of features."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from deq_collapse.metrics.moments import EXTRA, Moments, add_scatter, mirrored

# Pairs of close means that are subtracted at a time, which bounds the memory.
PAIRS = 4096
Centre = Literal["classes", "samples"]
Weighting = Literal["samples", "classes"]


def gram(rows: Tensor) -> Tensor:
    """rows rows^T, (K, K), at little more than half the cost of the product."""
    upper = rows.new_zeros(len(rows), len(rows))
    add_scatter(upper, rows.T)
    return mirrored(upper)


@dataclass(frozen=True)
class ClassStatistics:
    """Counts, means and within-class scatter of features h_i with labels y_i; float64.

    Attributes:
        counts: (K,) samples per class; a class without samples takes no part in any formula.
        means: (K, d) class means mu_c.
        variances: (K,) mean squared distance v_c of a class to its mean.
        within: (d, d) Sigma_W = sum_i a_i (h_i - mu_yi)(h_i - mu_yi)^T; (0, 0) if it was not accumulated.
        centre: the global mean mu_G is that of the class means ("classes", Papyan 2020) or of all "samples".
        weighting: in Sigma_W all "samples" weigh the same, a_i = 1/N (Papyan 2020), or all "classes", a_i =
            1/(K n_yi).

    """

    counts: Tensor
    means: Tensor
    variances: Tensor
    within: Tensor
    centre: Centre = "classes"
    weighting: Weighting = "samples"

    @classmethod
    def from_features(
        cls,
        features: Tensor,
        labels: Tensor,
        num_classes: int,
        centre: Centre = "classes",
        weighting: Weighting = "samples",
    ) -> "ClassStatistics":
        """Compute in two passes from all features (N, d) and labels (N,), in float64.

        Raises:
            ValueError: if fewer than two classes have samples.

        """
        h = features.detach().double()
        counts = torch.bincount(labels, minlength=num_classes).double()
        shares = counts.clamp(min=1)
        zeros = h.new_zeros(num_classes, h.shape[1])
        means = zeros.index_add(0, labels, h) / shares[:, None]
        # A second round takes the rounding of the first sum out of the mean.
        means += zeros.index_add(0, labels, h - means[labels]) / shares[:, None]
        residuals = h - means[labels]
        variances = torch.zeros_like(counts).index_add(0, labels, residuals.square().sum(1)) / shares
        stats = cls(counts, means, variances, h.new_zeros(0, 0), centre, weighting).checked()
        weights = (stats.weights / shares)[labels]
        return replace(stats, within=(weights[:, None] * residuals).T @ residuals)

    @classmethod
    def from_moments(
        cls, moments: Moments, centre: Centre = "classes", weighting: Weighting = "samples"
    ) -> "ClassStatistics":
        """Read them off one-pass moments, which hold no Sigma_W in which classes weigh the same."""
        counts, squares, means, offsets = (
            part[:-EXTRA] for part in (moments.counts, moments.squares, moments.means, moments.offsets)
        )
        variances = (squares / counts.clamp(min=1) - offsets.square().sum(1)).clamp(min=0)
        within = moments.scatter.clone()
        add_scatter(within, counts.sqrt()[:, None] * offsets, alpha=-1)
        within = mirrored(within).div_(counts.sum().clamp(min=1))
        return cls(counts, means, variances, within, centre, weighting)

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
    def weights(self) -> Tensor:
        """(K,) weight of every class in Sigma_W; they sum to 1."""
        shares = self.counts if self.weighting == "samples" else self.present.to(self.counts)
        return shares / shares.sum()

    @property
    def global_mean(self) -> Tensor:
        """mu_G, (d,)."""
        means = self.means[self.present]
        if self.centre == "samples":
            return self.counts[self.present] @ means / self.counts.sum()
        return means.mean(0)

    @cached_property
    def centred(self) -> Tensor:
        """M, rows mu_c - mu_G of the classes present, (K', d)."""
        return self.means[self.present] - self.global_mean

    @cached_property
    def gram(self) -> Tensor:
        """M M^T, (K', K')."""
        return gram(self.centred)

    @cached_property
    def distances(self) -> Tensor:
        """||mu_a - mu_b|| of the classes present, (K', K'); exactly 0 on the diagonal."""
        M, sizes = self.centred, self.gram.diagonal()
        total = sizes[:, None] + sizes
        squared = torch.sub(total, self.gram, alpha=2).clamp_(min=0)
        # Where the means are close to each other the expanded square cancels: those pairs are subtracted.
        for pairs in torch.split((squared < 1e-4 * total).triu(1).nonzero(), PAIRS):
            a, b = pairs.T
            squared[a, b] = squared[b, a] = (M[a] - M[b]).square().sum(1)
        return squared.fill_diagonal_(0).sqrt()

    @cached_property
    def between(self) -> tuple[Tensor, Tensor]:
        """Non-zero eigenvalues (r,) of M M^T = K Sigma_B and their unit eigenvectors as columns, (K', r).

        At most min(K'-1, d), and only those above the rounding of M M^T and the `resolution` of the means.
        """
        classes, width = self.centred.shape
        values, vectors = torch.linalg.eigh(self.gram)
        rank = min(classes - 1, width)
        values, vectors = values[-rank:], vectors[:, -rank:]
        floor = max(classes * torch.finfo(values.dtype).eps * float(values[-1]), classes * self.resolution**2)
        kept = values > floor
        return values[kept], vectors[:, kept]

    @cached_property
    def directions(self) -> Tensor:
        """Unit eigenvectors of Sigma_B in feature space, (r, d), in the order of `between`."""
        values, vectors = self.between
        return vectors.T @ self.centred / values.sqrt()[:, None]

    @property
    def resolution(self) -> float:
        """Distance below which two class means are the same in float64."""
        return 64 * torch.finfo(torch.float64).eps * float(self.means.norm(dim=1).max())

    def around(self, means: Tensor) -> "ClassStatistics":
        """Describe the same samples around other `means` (K, d), say test features around train means."""
        offset = torch.where(self.present[:, None], self.means - means, 0)
        within = self.within
        if within.numel():
            within = within + (self.weights[:, None] * offset).T @ offset
        return replace(self, means=means, variances=self.variances + offset.square().sum(1), within=within)
