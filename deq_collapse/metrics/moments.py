"""One-pass class moments around per-class pivots: float32 arithmetic, float64 sums, exact merges.

Every class c has a pivot p_c close to its mean. A sample adds h to a float64 sum, the squared length of its
residual r = h - p_y and, in a float32 GEMM, r r^T. Residuals of collapsed features are tiny, so nothing
cancels; sums over tiles are float64. Moving to another pivot is algebra on the sums, hence ranks merge by
moving to one pivot and adding.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

# Rows per GEMM: longer float32 sums lose digits, shorter ones spend their time adding (d, d) matrices.
TILE = 512
# Rows of the scatter matrix per GEMM.
STRIP = 128
# Two buckets behind the K classes: samples with non-finite features, and samples with labels out of range.
EXTRA = 2


@dataclass(frozen=True)
class Moments:
    """Named views of one flat float64 vector, so that a single state holds what has to be merged together.

    Attributes:
        counts: (K + 2,) samples per class, then non-finite samples, then labels out of range.
        squares: (K + 2,) sum of squared residual lengths.
        pivots: (K + 2, d) values that float32 represents exactly.
        sums: (K + 2, d) sum of features.
        scatter: (d, d) sum of r r^T, true on and above the diagonal; (0, 0) if it is not kept.

    """

    counts: Tensor
    squares: Tensor
    pivots: Tensor
    sums: Tensor
    scatter: Tensor

    @staticmethod
    def length(num_classes: int, num_features: int, with_scatter: bool) -> int:
        """Return the number of values in the flat vector."""
        rows = num_classes + EXTRA
        return 2 * rows * (1 + num_features) + num_features**2 * with_scatter

    @classmethod
    def of(cls, flat: Tensor, num_classes: int, num_features: int) -> "Moments":
        """View the vector `flat`; writing to the views writes to it."""
        rows, d = num_classes + EXTRA, num_features
        small = 2 * rows * (1 + d)
        counts, squares, pivots, sums, scatter = torch.split(
            flat, [rows, rows, rows * d, rows * d, flat.numel() - small], dim=0
        )
        side = d if scatter.numel() else 0
        return cls(counts, squares, pivots.view(rows, d), sums.view(rows, d), scatter.view(side, side))

    @property
    def means(self) -> Tensor:
        """Class means, (K + 2, d); 0 where a class has no sample."""
        return self.sums / self.counts.clamp(min=1)[:, None]

    @property
    def offsets(self) -> Tensor:
        """Class means less their pivots, (K + 2, d); 0 where a class has no sample."""
        return torch.where(self.counts[:, None] > 0, self.means - self.pivots, 0)

    def move(self, pivots: Tensor) -> None:
        """Re-express all sums around `pivots` (K + 2, d), in place."""
        delta = pivots - self.pivots
        half = self.counts[:, None] * (self.offsets - 0.5 * delta)
        if self.scatter.numel():
            cross = delta.T @ half
            self.scatter.sub_(cross).sub_(cross.T)
        self.squares.sub_(2 * (delta * half).sum(1))
        self.pivots.copy_(pivots)

    def recentre(self) -> None:
        """Move every pivot to the float32 value next to the class mean so far."""
        self.move(self.means.float().double())


def accumulate(moments: Moments, features: Tensor, labels: Tensor) -> Tensor:
    """Add samples to `moments` in place, without waiting for the device.

    Args:
        moments: what is added to.
        features: (N, d), any floating type; float64 is computed in float64, all else in float32.
        labels: (N,), int64.

    Returns:
        (N,) the bucket every sample was counted in: its class, K if its features are not finite (or their sum
        overflows), K + 1 if its label is outside 0..K-1.

    """
    num_classes = moments.counts.numel() - EXTRA
    buckets = [_add_tile(moments, x, y, num_classes) for x, y in zip(*_tiles(features, labels), strict=True)]
    return torch.cat(buckets) if buckets else labels


def merge(parts: Tensor, num_classes: int, num_features: int) -> Tensor:
    """Merge the flat vectors of several ranks, (R, L), into one, (L,): Chan's update, exact in float64."""
    views = [Moments.of(part.clone(), num_classes, num_features) for part in parts]
    counts = sum((view.counts for view in views), torch.zeros_like(views[0].counts))
    sums = sum((view.sums for view in views), torch.zeros_like(views[0].sums))
    pivots = (sums / counts.clamp(min=1)[:, None]).float().double()
    for view in views:
        view.move(pivots)
    merged = torch.zeros_like(parts[0])
    total = Moments.of(merged, num_classes, num_features)
    total.pivots.copy_(pivots)
    for view in views:
        for name in ("counts", "squares", "sums", "scatter"):
            getattr(total, name).add_(getattr(view, name))
    return merged


def _tiles(features: Tensor, labels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    if not len(labels):
        return (), ()
    return torch.split(features, TILE), torch.split(labels, TILE)


def _add_tile(moments: Moments, features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    x = features if features.dtype == torch.float64 else features.float()
    finite = x.sum(1).isfinite()
    valid = (labels >= 0) & (labels < num_classes)
    bucket = torch.where(valid, torch.where(finite, labels, num_classes), num_classes + 1)

    opens = moments.counts == 0
    moments.counts.index_add_(0, bucket, torch.ones_like(bucket, dtype=torch.float64))
    # From the features, not from the rounded residuals: means then are exact to float64.
    moments.sums.index_add_(0, bucket, x.double())
    moments.sums[num_classes:] = 0
    opens &= moments.counts > 0
    # Asking a CPU tensor costs nothing, asking a GPU would make it wait.
    if opens.device.type != "cpu" or bool(opens.any()):
        # A class that had no sample yet takes the mean of its samples in this tile as pivot.
        torch.where(opens[:, None], moments.means.float().double(), moments.pivots, out=moments.pivots)

    residuals = moments.pivots.to(x.dtype).index_select(0, bucket)
    # In place: memory freshly asked for costs more than the subtraction.
    torch.sub(x, residuals, out=residuals)
    kept = finite & valid
    if residuals.device.type != "cpu" or not bool(kept.all()):
        residuals.masked_fill_(~kept[:, None], 0)

    moments.squares.index_add_(0, bucket, torch.linalg.vector_norm(residuals, dim=1).double().square())
    if moments.scatter.numel():
        add_scatter(moments.scatter, residuals)
    return bucket


def add_scatter(scatter: Tensor, rows: Tensor, alpha: float = 1) -> None:
    """Add alpha sum_i r_i r_i^T to the upper triangle of `scatter` (d, d), in place.

    Strips leave out most of what is below the diagonal: less work than one GEMM.
    """
    with full_precision(rows.device.type):
        for start in range(0, len(scatter), STRIP):
            strip = slice(start, start + STRIP)
            scatter[strip, start:].add_(rows[:, strip].T @ rows[:, start:], alpha=alpha)


def mirrored(upper: Tensor) -> Tensor:
    """Symmetric matrix with the upper triangle of `upper` (n, n), of which the lower one is overwritten."""
    full = upper.triu_() + upper.T
    full.diagonal().mul_(0.5)
    return full


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Keep autocast, TF32 and bfloat16 matmuls out: they would cost three digits."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        available = torch.amp.is_autocast_available(device_type)
        with torch.autocast(device_type, enabled=False) if available else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
