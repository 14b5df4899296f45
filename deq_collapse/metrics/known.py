"""What is known when the formulas of `table.py` are applied, and hence which values can be computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from deq_collapse.metrics.functional import nc1, nc1_per_class, nc4
from deq_collapse.metrics.functional.separation import weighted_means
from deq_collapse.metrics.geometry import (
    Geometry,
    centred_diagonal,
    centred_rows,
    doubly_centred_diagonal,
    gof_diagonals,
    relu_ce_diagonals,
    seli_gram,
    simplex_etf_gram,
)
from deq_collapse.metrics.statistics import ClassStatistics, gram

Need = Literal["within", "classifier", "samples", "minority", "minority_pair", "outside", "matrix", "fixed"]
LACKS: dict[Need, str] = {
    "classifier": "no weight was given",
    "minority": "no majority was given, or one of both groups has no samples",
    "minority_pair": "there are not two minority classes",
    "outside": "no out-of-distribution features were given",
    "fixed": "no means were fixed by `fix_means`, or no sample was decided on since",
}
"""The reason to report when a need is not met."""


@dataclass(frozen=True)
class Known:
    """Everything known at compute time; K' of the K classes have samples.

    Attributes:
        stats: statistics of all classes.
        classifier: (K, d) all classifier rows, or None.
        majority: indices of the majority classes, or None.
        class_counts: (K,) counts that set the SELI, GOF and ReLU targets; None uses those of `stats`.
        decays: of the classifier and of the features; they set the GOF and ReLU targets.
        outside: (d,) mean of out-of-distribution features; None if there are none.
        skipped: number of samples left out because of non-finite features.
        buffers: whether samples are kept until the means are known.
        projects: whether NC1 is computed from those samples, not from Sigma_W.
        spreads: whether `count` computes the spread of classes.
        count: returns the counts of `functional.tally_samples` over all ranks.
        count_directions: returns those of `functional.tally_directions`.
        fixed: (2, 1) samples decided on while means were fixed, and those of them that are not nearest to the
            mean of the decided class; None if no means were fixed, or no sample was decided on since.

    """

    stats: ClassStatistics
    classifier: Tensor | None
    majority: Sequence[int] | None
    class_counts: Sequence[int] | None
    decays: tuple[float, float]
    outside: Tensor | None
    skipped: Tensor
    buffers: bool
    projects: bool
    spreads: bool
    count: Callable[[], Tensor]
    count_directions: Callable[[], Tensor]
    fixed: Tensor | None
    _matrix: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def given(self) -> set[Need]:
        """The needs of formulas that are satisfied."""
        given: set[Need] = {"within", "matrix"}
        if self.fixed is not None:
            given.add("fixed")
        if self.buffers:
            given.add("samples")
        if self.classifier is not None:
            given.add("classifier")
        if self.outside is not None:
            given.add("outside")
        minority = self.minority_present
        if bool(minority.any()) and not bool(minority.all()):
            given.add("minority")
            if int(minority.sum()) > 1:
                given.add("minority_pair")
        return given

    @cached_property
    def tally(self) -> Tensor:
        """(4, K) from `functional.tally_samples`, over all ranks."""
        return self.count()

    @property
    def nc1(self) -> Tensor:
        """NC1, from the samples or from Sigma_W, as prepared."""
        if not self.projects:
            return nc1(self.stats)
        shares, present = self.stats.weights, self.stats.present
        return shares[present] @ nc1_per_class(self.stats, self.tally[3])[present]

    @property
    def nc1_per_class(self) -> Tensor:
        """(K,) NC1 of every class, nan where it has no samples; needs the spread."""
        return torch.where(self.stats.present, nc1_per_class(self.stats, self.tally[3]), torch.nan)

    @property
    def outside_mean(self) -> Tensor:
        """(d,) mean of out-of-distribution features.

        Raises:
            ValueError: if there are none.

        """
        if self.outside is None:
            raise ValueError("this value needs out-of-distribution features, and none were given")
        return self.outside

    @property
    def nc4_fixed(self) -> Tensor:
        """NC4 against fixed means.

        Raises:
            ValueError: if there are none.

        """
        if self.fixed is None:
            raise ValueError("this value needs means, and none were fixed")
        return nc4(self.fixed)

    @property
    def total_roots(self) -> Tensor:
        """(d,) roots of the eigenvalues of the covariance of all samples."""
        rows = weighted_means(self.stats)
        values: Tensor = torch.linalg.eigvalsh(torch.addmm(self.stats.within, rows.T, rows))
        # The rounding error of an eigenvalue would be a visible part of the sum of the roots.
        rounding = len(values) * torch.finfo(values.dtype).eps * values[-1]
        return torch.where(values > rounding, values, 0).sqrt()

    @property
    def means(self) -> Tensor:
        """(K', d) centred class means."""
        return self.stats.centred

    @property
    def gram(self) -> Tensor:
        """(K', K') Gram matrix of the centred class means."""
        return self.stats.gram

    @property
    def raw_gram(self) -> Tensor:
        """(K', K') Gram matrix of the class means, not centred."""
        along = self.means @ self.stats.global_mean
        return (self.gram + along).add_(along[:, None] + self.stats.global_mean.square().sum())

    @property
    def rows_gram(self) -> Tensor:
        """(K, K) Gram matrix of all classifier rows."""
        return self._kept("rows_gram", lambda: gram(self.rows))

    @property
    def target_rows_gram(self) -> Tensor:
        """Gram matrix of the classifier rows that the targets describe.

        (K, K) where `class_counts` are known, else (K', K') of the classes that have samples.
        """
        return self.rows_gram if self.class_counts is not None else self._among_seen(self.rows_gram)

    @property
    def product(self) -> Tensor:
        """W M^T, (K', K'), of classifier rows and centred means."""
        return self._kept("product", lambda: self.weight @ self.means.T)

    def _kept(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """A (K, K) matrix, kept until another one is asked for."""
        if name not in self._matrix:
            self._matrix.clear()
            self._matrix[name] = make()
        return self._matrix[name]

    @property
    def raw_product(self) -> Tensor:
        """The same with uncentred class means."""
        return self.product + (self.weight @ self.stats.global_mean)[:, None]

    @property
    def rows(self) -> Tensor:
        """(K, d) all classifier rows.

        Raises:
            ValueError: if there is no classifier.

        """
        if self.classifier is None:
            raise ValueError("this value needs a classifier, and no weight was given")
        return self.classifier

    @property
    def weight(self) -> Tensor:
        """(K', d) classifier rows of the classes that have samples."""
        return self.stats.seen(self.rows)

    @property
    def minority(self) -> Tensor:
        """(K,) bool; all False if the majority classes were not given."""
        minority = torch.full_like(self.stats.present, self.majority is not None)
        minority[list(self.majority or ())] = False
        return minority

    @property
    def minority_present(self) -> Tensor:
        """(K',) bool."""
        return self.minority[self.stats.present]

    @property
    def raw_means(self) -> Tensor:
        """(K', d) class means, not centred."""
        return self.stats.seen(self.stats.means)

    @cached_property
    def counts(self) -> list[int]:
        """Counts that set the targets: the K `class_counts`, or else those of the K' classes with samples."""
        if self.class_counts is not None:
            return list(self.class_counts)
        present: list[float] = self.stats.seen(self.stats.counts).tolist()
        return [int(n) for n in present]

    @property
    def seli_weights(self) -> Tensor:
        """SELI target of W W^T."""
        return seli_gram(self.counts, "weights")

    @property
    def seli_means(self) -> Tensor:
        """SELI target of the centred means, (K', K')."""
        return self._centred(seli_gram(self.counts, "means"))

    @property
    def seli_logits(self) -> Tensor:
        """SELI target of their products with classifier rows, (K', K')."""
        return self._centred(simplex_etf_gram(len(self.counts)))

    @property
    def frame(self) -> Geometry:
        """Diagonals of the GOF targets; those of means and logits are (K',)."""
        weights, means, logits = (v.to(self.stats.means) for v in gof_diagonals(self.counts, *self.decays))
        return Geometry(weights, self._seen(means), self._seen(logits))

    @property
    def relu_weights(self) -> Tensor:
        """Target of W W^T for cross entropy with features after a ReLU, up to scale."""
        return doubly_centred_diagonal(self._relu.weights)

    @property
    def relu_means(self) -> Tensor:
        """The same for uncentred class means, (K', K')."""
        return self._seen(self._relu.means).diag()

    @property
    def relu_logits(self) -> Tensor:
        """The same for their products with classifier rows, (K', K')."""
        return self._among_seen(centred_diagonal(self._relu.logits))

    @property
    def _relu(self) -> Geometry:
        return Geometry(*(v.to(self.stats.means) for v in relu_ce_diagonals(self.counts, *self.decays)))

    def _seen(self, rows: Tensor) -> Tensor:
        """Rows of the classes that have samples; the target covers all K classes or only those."""
        return rows if self.class_counts is None else self.stats.seen(rows)

    def _among_seen(self, matrix: Tensor) -> Tensor:
        """The same for rows and columns; (K', K')."""
        return (
            self.stats.seen(self.stats.seen(matrix).T).T if len(matrix) == len(self.stats.counts) else matrix
        )

    def _centred(self, target: Tensor) -> Tensor:
        """Rows and columns of the classes that have samples. If some have none, they are centred at the mean
        of the others, as `means` are.
        """
        part = self._among_seen(target.to(self.stats.means))
        if len(part) < len(target):
            part = centred_rows(centred_rows(part).T).T
        return part
