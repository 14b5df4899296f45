"""Class moments around per-class pivots: float64 sums, exact merges.

Every class c has a pivot p_c, one of its samples. A sample adds h to a float64 sum, the squared length of its
residual r = h - p_y and, in a float32 GEMM, r r^T (`accumulate.py`). Residuals of collapsed features are
tiny, so nothing cancels; sums over tiles are float64. Moving to another pivot is algebra on the sums, so
ranks merge by moving to one pivot and adding.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

# Rows per GEMM: longer float32 sums lose digits, shorter ones spend most of the time adding (d, d) matrices.
TILE = 512
# Rows of the scatter matrix per GEMM.
STRIP = 128
# Two buckets after the K classes: samples with non-finite features, and samples with labels out of range.
EXTRA = 2


@dataclass(frozen=True)
class Moments:
    """Named views of one flat float64 vector, so that one state holds everything that is merged together.

    Attributes:
        counts: (K + 2,) samples per class, then non-finite samples, then labels out of range.
        settled: (K + 2,) the count when the pivot was last checked; 0 where there is no pivot yet.
        squares: (K + 2,) sum of squared residual lengths.
        usual: (1,) recent median of the residual lengths; 0 if unknown.
        pivots: (K + 2, d), values that float32 represents exactly.
        sums: (K + 2, d) sum of features.
        scatter: (d, d) sum of r r^T, valid on and above the diagonal; (0, 0) if it is not kept.

    """

    counts: Tensor
    settled: Tensor
    squares: Tensor
    usual: Tensor
    pivots: Tensor
    sums: Tensor
    scatter: Tensor

    @staticmethod
    def length(num_classes: int, num_features: int, with_scatter: bool) -> int:
        """Return the number of values in the flat vector."""
        rows = num_classes + EXTRA
        return rows * (3 + 2 * num_features) + 1 + num_features**2 * with_scatter

    @classmethod
    def of(cls, flat: Tensor, num_classes: int, num_features: int) -> "Moments":
        """View the vector `flat`; writing to the views writes to it."""
        rows, d = num_classes + EXTRA, num_features
        counts, settled, squares, usual, pivots, sums, scatter = torch.split(
            flat, [rows, rows, rows, 1, rows * d, rows * d, flat.numel() - rows * (3 + 2 * d) - 1]
        )
        side = d if scatter.numel() else 0
        matrices = pivots.view(rows, d), sums.view(rows, d), scatter.view(side, side)
        return cls(counts, settled, squares, usual, *matrices)

    def means(self, rows: slice | Tensor = slice(None)) -> Tensor:
        """Class means, (K + 2, d), or some rows of them; 0 where a class has no sample."""
        return self.sums[rows] / self.counts[rows, None].clamp(min=1)

    def offsets(self, rows: slice = slice(None)) -> Tensor:
        """Class means minus their pivots, (K + 2, d), or some rows of them; 0 where a class has no sample."""
        return self.means(rows).sub_(self.pivots[rows]).mul_(self.counts[rows, None] > 0)

    def move(self, rows: slice | Tensor, pivots: Tensor, counts: Tensor, sums: Tensor) -> None:
        """Re-express the sums around `pivots`, in place.

        Args:
            rows: m of the K + 2.
            pivots: (m, d) their new pivots.
            counts: (m,) of the samples that are in `squares` and `scatter`.
            sums: (m, d) of their features.

        """
        delta = pivots - self.pivots[rows]
        half = torch.addcmul(sums, self.pivots[rows] + delta / 2, counts[:, None], value=-1)
        if self.scatter.numel():
            add_products(self.scatter, delta, half, alpha=-1)
            add_products(self.scatter, half, delta, alpha=-1)
        self.squares[rows] -= 2 * half.mul_(delta).sum(1)
        self.pivots[rows] = pivots


def merge(parts: Tensor, num_classes: int, num_features: int) -> Tensor:
    """Merge the flat vectors of several ranks, (R, L), into one, (L,): Chan's update, exact in float64.

    A class takes the pivot of the rank with most of its samples: the mean of all pivots would follow
    outliers.

    The memory of `parts`, as large as that of all ranks together, is overwritten.
    """
    views = [Moments.of(part, num_classes, num_features) for part in parts]
    counts = sum((view.counts for view in views), torch.zeros_like(views[0].counts))
    usual = torch.stack([view.usual for view in views])
    usual = torch.where(usual > 0, usual, torch.inf).amin(0)
    most = torch.stack([view.counts for view in views]).argmax(0)
    pivots = views[0].pivots.clone()
    for rank, view in enumerate(views):
        torch.where((most == rank)[:, None], view.pivots, pivots, out=pivots)
    for view in views:
        for rows in strips(len(counts)):
            view.move(rows, pivots[rows], view.counts[rows], view.sums[rows])
    for view in views[1:]:
        for name in ("counts", "settled", "squares", "sums", "scatter"):
            getattr(views[0], name).add_(getattr(view, name))
    views[0].usual.copy_(torch.where(usual < torch.inf, usual, 0))
    return parts[0].clone()


def strips(side: int) -> Iterator[slice]:
    """Cut the rows of a (side, side) matrix into strips: half of a symmetric matrix need not be computed."""
    return (slice(start, min(start + STRIP, side)) for start in range(0, side, STRIP))


def add_products(upper: Tensor, left: Tensor, right: Tensor, alpha: float = 1) -> None:
    """Add alpha left^T right to the upper triangle of `upper` (d, d), in place; left and right are (n, d).

    Strips skip most of the lower triangle: less work than one GEMM, and no extra (d, d) matrix.
    """
    with full_precision(left.device.type):
        for rows in strips(len(upper)):
            upper[rows, rows.start :].add_(left[:, rows].T @ right[:, rows.start :], alpha=alpha)


def mirror_(upper: Tensor) -> Tensor:
    """Copy the part above the diagonal of `upper` (n, n) below it, in place."""
    for rows in strips(len(upper)):
        block = upper[rows, rows]
        block.copy_(block.triu() + block.triu(1).T)
        upper[rows.stop :, rows] = upper[rows, rows.stop :].T
    return upper


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Disable autocast, TF32 and bfloat16 matmuls, which would cost three digits."""
    # Not torch's older get_float32_matmul_precision, which raises where its user has set one of these.
    kinds = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [kind.fp32_precision for kind in kinds]
    for kind in kinds:
        kind.fp32_precision = "ieee"
    try:
        available = torch.amp.is_autocast_available(device_type)
        with torch.autocast(device_type, enabled=False) if available else nullcontext():
            yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision
