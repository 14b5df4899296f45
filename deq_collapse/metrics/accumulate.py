"""One pass over samples: float32 arithmetic, float64 sums, pivots that outliers do not move.

The pivot of a class is a sample, not the mean, because an outlier drags the mean away from all other samples;
the sample nearest to the mean is a typical one. Samples that are still far from their pivot are multiplied in
float64, where the rounding of their squares is negligible.
"""

import torch
from torch import Tensor

from deq_collapse.metrics.inputs import finite_rows
from deq_collapse.metrics.moments import EXTRA, TILE, Moments, add_products

# Below this number of samples, the pivot of a class may be an outlier, and its residuals are multiplied in
# float64.
YOUNG = 4
# Above it, a pivot is checked again whenever its class has grown by this factor.
GROWTH = 4
# It may be an outlier if its squared distance to the mean exceeds this multiple of the variance: the ratio is
# 1 for any sample in high dimensions and n - 1 for an outlier among n.
ASIDE = 1.5
# It then moves to a sample whose distance to the mean is less than this share of its own.
NEARER = 0.75
# Residuals longer than this multiple of the usual length are multiplied in float64, too.
FAR = 8
# Pivots and outliers handled per tile on an accelerator, where a data-dependent number would force a wait.
MOVES = 32


def accumulate(moments: Moments, features: Tensor, labels: Tensor) -> Tensor:
    """Add samples to `moments` in place, without waiting for the device.

    Args:
        moments: the moments to add to.
        features: (N, d), any floating type; float64 is computed in float64, all else in float32.
        labels: (N,), int64.

    Returns:
        (N,) the bucket in which each sample was counted: its class, K if its features are not finite (or
        their sum overflows), K + 1 if its label is outside 0..K-1.

    """
    num_classes = moments.counts.numel() - EXTRA
    buckets = [_add_tile(moments, x, y, num_classes) for x, y in zip(*_tiles(features, labels), strict=True)]
    return torch.cat(buckets) if buckets else labels


def _tiles(features: Tensor, labels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    if not len(labels):
        return (), ()
    return torch.split(features, TILE), torch.split(labels, TILE)


def _add_tile(moments: Moments, features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    x = features if features.dtype == torch.float64 else features.float()
    finite = finite_rows(x)
    valid = (labels >= 0) & (labels < num_classes)
    bucket = torch.where(valid, torch.where(finite, labels, num_classes), num_classes + 1)

    young = _count(moments, x, bucket)
    if len(bucket) < len(moments.pivots):
        residuals = moments.pivots.index_select(0, bucket).to(x.dtype)
    else:
        residuals = moments.pivots.to(x.dtype).index_select(0, bucket)
    # In place: allocating memory costs more than the subtraction.
    torch.sub(x, residuals, out=residuals)
    kept = finite & valid
    if residuals.device.type != "cpu" or not bool(kept.all()):
        residuals.masked_fill_(~kept[:, None], 0)

    lengths = torch.linalg.vector_norm(residuals, dim=1)
    if x.dtype == torch.float32 and moments.scatter.numel():
        rows = _far(lengths, young[bucket], moments.usual)
        if len(rows):
            # The rounding of an outlier's float32 square exceeds the sum of all others.
            exact = x[rows].double().sub_(moments.pivots[bucket[rows]]).masked_fill_(~kept[rows, None], 0)
            add_products(moments.scatter, exact, exact)
            residuals[rows] = 0
    moments.squares.index_add_(0, bucket, lengths.double().square())
    if moments.scatter.numel():
        add_products(moments.scatter, residuals, residuals)
    return bucket


def _far(lengths: Tensor, young: Tensor, usual: Tensor) -> Tensor:
    """Rows far longer than usual or of a class too young to tell; on an accelerator the longest, to avoid
    waits.

    The usual length is the median of a tile. It falls at once but at most doubles in a full tile, so that
    outliers do not count as usual when they make up most of a tile.
    """
    if lengths.device.type != "cpu":
        return lengths.topk(min(MOVES, len(lengths))).indices
    known = lengths[~young & (lengths > 0)]
    if len(known):
        median = known.median().double()
        usual.copy_(torch.where(usual > 0, median.minimum((1 + len(known) / TILE) * usual), median))
    return ((young & (lengths > 0)) | (lengths > FAR * usual)).nonzero().flatten()


def _count(moments: Moments, x: Tensor, bucket: Tensor) -> Tensor:
    """Add to counts and sums, and check the pivots before the residuals of this tile are taken.

    A class without a pivot takes the sample of this tile that is nearest to its mean. So does a class that
    has grown and whose pivot is much farther from the mean than that sample: the pivot was an outlier, or the
    class has drifted.

    Returns:
        (K + 2,) bool: classes with fewer than `YOUNG` samples.

    """
    arrivals = torch.zeros_like(moments.counts)
    arrivals.index_add_(0, bucket, torch.ones_like(bucket, dtype=torch.float64))
    total = moments.counts + arrivals
    opens = (total > 0) & (moments.settled == 0)
    growth = torch.where((arrivals > 0) & ~opens, total / moments.settled, 0)
    opens[-EXTRA:], growth[-EXTRA:] = False, 0
    on_cpu = opens.device.type == "cpu"
    # On a CPU, finding out which pivots are due costs nothing. On a GPU the host would have to wait, so the
    # classes that have grown most are taken, and those of them that are not due keep their pivots.
    rows = (growth >= GROWTH).nonzero().flatten() if on_cpu else growth.topk(min(MOVES, len(growth))).indices
    due = growth[rows] >= GROWTH
    counts, sums = moments.counts[rows], moments.sums[rows]
    aside = due & _aside(moments, rows, counts, sums) if len(rows) else due

    moments.counts.copy_(total)
    # From the features, not from the rounded residuals, so that the means are exact in float64.
    moments.sums.index_add_(0, bucket, x.double())
    moments.sums[-EXTRA:] = 0
    young = total < YOUNG
    if on_cpu and not len(rows) and not bool(opens.any()):
        return young
    looked, wanted = opens.clone(), opens.clone()
    looked[rows] |= due
    wanted[rows] |= aside
    torch.where(looked, torch.where(young, 1, total), moments.settled, out=moments.settled)
    if not on_cpu or bool(wanted.any()):
        classes, samples = _nearest_to_means(moments, x, bucket, wanted)
        nearest = x[samples].float().double()
        if on_cpu:
            opening = opens[classes]
            moments.pivots[classes[opening]] = nearest[opening]
            rows, counts, sums = rows[aside], counts[aside], sums[aside]
        else:
            torch.where(opens[:, None], nearest, moments.pivots, out=moments.pivots)
        near = nearest[torch.searchsorted(classes, rows)]
        _follow(moments, rows, torch.where(wanted[rows, None], near, moments.pivots[rows]), counts, sums)
    return young


def _aside(moments: Moments, rows: Tensor, counts: Tensor, sums: Tensor) -> Tensor:
    """Return which of the classes (m,), with `counts` and `sums`, may have an outlier as pivot, (m,) bool."""
    offsets = (sums / counts[:, None]).sub_(moments.pivots[rows]).square_().sum(1)
    return (counts < YOUNG - 1) | (offsets > ASIDE * (moments.squares[rows] / counts - offsets))


def _nearest_to_means(moments: Moments, x: Tensor, bucket: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Find the samples nearest to the means of their classes.

    Returns:
        (m,) classes in order, at least those `wanted`, and (m,) the row of x for each; an arbitrary row where
        a class has no sample.

    """
    if x.device.type == "cpu":
        rows, classes = wanted[bucket].nonzero().flatten(), wanted.nonzero().flatten()
        own = torch.searchsorted(classes, bucket[rows])
    else:
        rows, classes = (torch.arange(len(of), device=x.device) for of in (x, wanted))
        own = bucket
    differences = moments.means(classes).to(x.dtype).index_select(0, own)
    torch.sub(x.index_select(0, rows), differences, out=differences)
    distances = torch.linalg.vector_norm(differences, dim=1)
    least = distances.new_full(classes.shape, torch.inf).scatter_reduce(0, own, distances, "amin")
    last = len(rows) - 1
    places = torch.where(distances <= least[own], torch.arange(len(rows), device=x.device), last)
    return classes, rows[torch.full_like(classes, last).scatter_reduce(0, own, places, "amin")]


def _follow(moments: Moments, rows: Tensor, nearest: Tensor, counts: Tensor, sums: Tensor) -> None:
    """Move pivots to samples that are `NEARER` to the means; the arguments are those of `Moments.move`."""
    means, pivots = moments.means(rows), moments.pivots[rows]
    moves = (nearest - means).norm(dim=1) < NEARER * (pivots - means).norm(dim=1)
    if rows.device.type == "cpu":
        rows, nearest, counts, sums = rows[moves], nearest[moves], counts[moves], sums[moves]
    else:
        nearest = torch.where(moves[:, None], nearest, pivots)
    if len(rows):
        moments.move(rows, nearest, counts, sums)
