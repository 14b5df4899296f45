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
# A pivot moves when its class has grown by this factor; on an accelerator so many pivots and outliers a tile.
GROWTH, MOVES = 4, 32
# Residuals this many times as long as the median are multiplied in float64.
FAR = 8
# Two buckets behind the K classes: samples with non-finite features, and samples with labels out of range.
EXTRA = 2


@dataclass(frozen=True)
class Moments:
    """Named views of one flat float64 vector, so that a single state holds what has to be merged together.

    Attributes:
        counts: (K + 2,) samples per class, then non-finite samples, then labels out of range.
        settled: (K + 2,) how many there were when the pivot became their mean; 0 where there is no pivot yet.
        squares: (K + 2,) sum of squared residual lengths.
        pivots: (K + 2, d) values that float32 represents exactly.
        sums: (K + 2, d) sum of features.
        scatter: (d, d) sum of r r^T, true on and above the diagonal; (0, 0) if it is not kept.

    """

    counts: Tensor
    settled: Tensor
    squares: Tensor
    pivots: Tensor
    sums: Tensor
    scatter: Tensor

    @staticmethod
    def length(num_classes: int, num_features: int, with_scatter: bool) -> int:
        """Return the number of values in the flat vector."""
        rows = num_classes + EXTRA
        return rows * (3 + 2 * num_features) + num_features**2 * with_scatter

    @classmethod
    def of(cls, flat: Tensor, num_classes: int, num_features: int) -> "Moments":
        """View the vector `flat`; writing to the views writes to it."""
        rows, d = num_classes + EXTRA, num_features
        counts, settled, squares, pivots, sums, scatter = torch.split(
            flat, [rows, rows, rows, rows * d, rows * d, flat.numel() - rows * (3 + 2 * d)]
        )
        side = d if scatter.numel() else 0
        matrices = pivots.view(rows, d), sums.view(rows, d), scatter.view(side, side)
        return cls(counts, settled, squares, *matrices)

    def means(self, rows: slice = slice(None)) -> Tensor:
        """Class means, (K + 2, d), or some rows of them; 0 where a class has no sample."""
        return self.sums[rows] / self.counts[rows, None].clamp(min=1)

    def offsets(self, rows: slice = slice(None)) -> Tensor:
        """Class means less their pivots, (K + 2, d), or some rows of them; 0 where a class has no sample."""
        return self.means(rows).sub_(self.pivots[rows]).mul_(self.counts[rows, None] > 0)

    def move(self, rows: slice | Tensor, pivots: Tensor, counts: Tensor, sums: Tensor) -> None:
        """Re-express what was summed around `pivots`, in place.

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
    """Merge the flat vectors of several ranks, (R, L), into one, (L,): Chan's update, exact in float64.

    The memory of `parts`, which is as large as all ranks together, is used and overwritten.
    """
    views = [Moments.of(part, num_classes, num_features) for part in parts]
    counts = sum((view.counts for view in views), torch.zeros_like(views[0].counts))
    sums = sum((view.sums for view in views), torch.zeros_like(views[0].sums))
    pivots = (sums / counts.clamp(min=1)[:, None]).float().double()
    for view in views:
        for rows in strips(len(counts)):
            view.move(rows, pivots[rows], view.counts[rows], view.sums[rows])
    for view in views[1:]:
        for name in ("counts", "settled", "squares", "sums", "scatter"):
            getattr(views[0], name).add_(getattr(view, name))
    return parts[0].clone()


def _tiles(features: Tensor, labels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    if not len(labels):
        return (), ()
    return torch.split(features, TILE), torch.split(labels, TILE)


def _add_tile(moments: Moments, features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    x = features if features.dtype == torch.float64 else features.float()
    finite = x.sum(1).isfinite()
    valid = (labels >= 0) & (labels < num_classes)
    bucket = torch.where(valid, torch.where(finite, labels, num_classes), num_classes + 1)

    _count(moments, x, bucket)
    if len(bucket) < len(moments.pivots):
        residuals = moments.pivots.index_select(0, bucket).to(x.dtype)
    else:
        residuals = moments.pivots.to(x.dtype).index_select(0, bucket)
    # In place: memory freshly asked for costs more than the subtraction.
    torch.sub(x, residuals, out=residuals)
    kept = finite & valid
    if residuals.device.type != "cpu" or not bool(kept.all()):
        residuals.masked_fill_(~kept[:, None], 0)

    lengths = torch.linalg.vector_norm(residuals, dim=1)
    if x.dtype == torch.float32 and moments.scatter.numel():
        rows = _far(lengths)
        if len(rows):
            # The float32 square of an outlier rounds by more than what all others add up to.
            exact = torch.where(kept[rows, None], x[rows].double() - moments.pivots[bucket[rows]], 0)
            add_products(moments.scatter, exact, exact)
            residuals[rows] = 0
    moments.squares.index_add_(0, bucket, lengths.double().square())
    if moments.scatter.numel():
        add_products(moments.scatter, residuals, residuals)
    return bucket


def _far(lengths: Tensor) -> Tensor:
    """Rows far longer than half of all; on an accelerator, which must not be asked, the longest."""
    if lengths.device.type == "cpu":
        return (lengths > FAR * lengths.median()).nonzero().flatten()
    return lengths.topk(min(MOVES, len(lengths))).indices


def _count(moments: Moments, x: Tensor, bucket: Tensor) -> None:
    """Add to counts and sums, and let the pivots follow: a class may open with an outlier, and residuals to a
    far pivot would lose digits in float32.

    A pivot moves, before the samples at hand are seen from there, once its class has `GROWTH` times as many
    samples as it is the mean of.
    """
    arrivals = torch.zeros_like(moments.counts)
    arrivals.index_add_(0, bucket, torch.ones_like(bucket, dtype=torch.float64))
    total = moments.counts + arrivals
    opens = (total > 0) & (moments.settled == 0)
    growth = torch.where((arrivals > 0) & ~opens, total / moments.settled, 0)
    opens[-EXTRA:], growth[-EXTRA:] = False, 0
    on_cpu = opens.device.type == "cpu"
    # Asking a CPU tensor which are due costs nothing. A GPU would make the host wait: it takes those that
    # have grown most, and leaves in place those of them that are not due.
    rows = (growth >= GROWTH).nonzero().flatten() if on_cpu else growth.topk(min(MOVES, len(growth))).indices
    counts, sums = moments.counts[rows], moments.sums[rows]

    moments.counts.copy_(total)
    # From the features, not from the rounded residuals: means then are exact to float64.
    moments.sums.index_add_(0, bucket, x.double())
    moments.sums[-EXTRA:] = 0
    # A class that had no sample yet takes the mean of its samples in this tile.
    if not on_cpu:
        torch.where(opens[:, None], moments.means().float().double(), moments.pivots, out=moments.pivots)
    elif bool(opens.any()):
        moments.pivots[opens] = (moments.sums[opens] / total[opens, None]).float().double()
    moments.settled.copy_(torch.where(opens, total, moments.settled))

    if len(rows):
        due = growth[rows] >= GROWTH
        means = (moments.sums[rows] / total[rows, None]).float().double()
        moments.move(rows, torch.where(due[:, None], means, moments.pivots[rows]), counts, sums)
        moments.settled[rows] = torch.where(due, total[rows], moments.settled[rows])


def strips(side: int) -> Iterator[slice]:
    """Cut the rows of a (side, side) matrix into strips: of a symmetric one half need not be found."""
    return (slice(start, min(start + STRIP, side)) for start in range(0, side, STRIP))


def add_products(upper: Tensor, left: Tensor, right: Tensor, alpha: float = 1) -> None:
    """Add alpha left^T right to the upper triangle of `upper` (d, d), in place; left and right are (n, d).

    Strips leave out most of what is below the diagonal: less work than one GEMM, and no (d, d) matrix beside.
    """
    with full_precision(left.device.type):
        for rows in strips(len(upper)):
            upper[rows, rows.start :].add_(left[:, rows].T @ right[:, rows.start :], alpha=alpha)


def mirror_(upper: Tensor) -> Tensor:
    """Copy what is above the diagonal of `upper` (n, n) below it, in place."""
    for rows in strips(len(upper)):
        block = upper[rows, rows]
        block.copy_(block.triu() + block.triu(1).T)
        upper[rows.stop :, rows] = upper[rows, rows.stop :].T
    return upper


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
