"""One pass over samples: float32 arithmetic, float64 sums, pivots that outliers do not move.

The pivot of a class is a sample and not its mean, for an outlier drags the mean away from all others: the
sample nearest to the mean is one of the many. Whatever is far from its pivot all the same is multiplied in
float64, where its square rounds by nothing that counts.
"""

import torch
from torch import Tensor

from deq_collapse.metrics.moments import EXTRA, TILE, Moments, add_products

# Until a class has so many samples its pivot may be an outlier, and its residuals are multiplied in float64.
YOUNG = 4
# From then on a pivot is looked at whenever its class has grown by this factor.
GROWTH = 4
# It may be an outlier if its squared distance to the mean is this many times the variance: that is 1 for any
# sample in high dimensions, n - 1 for an outlier among n.
ASIDE = 1.5
# It then moves to a sample nearer to the mean than this share of its own distance.
NEARER = 0.75
# So are residuals this many times as long as is usual.
FAR = 8
# So many pivots and outliers per tile on an accelerator, which must not be waited for.
MOVES = 32


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


def _tiles(features: Tensor, labels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    if not len(labels):
        return (), ()
    return torch.split(features, TILE), torch.split(labels, TILE)


def _add_tile(moments: Moments, features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    x = features if features.dtype == torch.float64 else features.float()
    finite = x.sum(1).isfinite()
    valid = (labels >= 0) & (labels < num_classes)
    bucket = torch.where(valid, torch.where(finite, labels, num_classes), num_classes + 1)

    young = _count(moments, x, bucket)
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
        rows = _far(lengths, young[bucket], moments.usual)
        if len(rows):
            # The float32 square of an outlier rounds by more than what all others add up to.
            exact = x[rows].double().sub_(moments.pivots[bucket[rows]]).masked_fill_(~kept[rows, None], 0)
            add_products(moments.scatter, exact, exact)
            residuals[rows] = 0
    moments.squares.index_add_(0, bucket, lengths.double().square())
    if moments.scatter.numel():
        add_products(moments.scatter, residuals, residuals)
    return bucket


def _far(lengths: Tensor, young: Tensor, usual: Tensor) -> Tensor:
    """Rows far longer than usual, or of a class too young to say; on an accelerator, which must not be asked,
    the longest.

    What is usual is the median of a tile. It falls at once, and grows no more than twofold in a full tile, so
    that outliers do not pass as usual where they are most of a tile.
    """
    if lengths.device.type != "cpu":
        return lengths.topk(min(MOVES, len(lengths))).indices
    known = lengths[~young & (lengths > 0)]
    if len(known):
        median = known.median().double()
        usual.copy_(torch.where(usual > 0, median.minimum((1 + len(known) / TILE) * usual), median))
    return ((young & (lengths > 0)) | (lengths > FAR * usual)).nonzero().flatten()


def _count(moments: Moments, x: Tensor, bucket: Tensor) -> Tensor:
    """Add to counts and sums, and look at pivots before the samples at hand are seen from there.

    A class without a pivot takes the sample at hand that is nearest to its mean. So does one that has grown
    and whose pivot is far from the mean beside that sample: it was an outlier, or the class has drifted.

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
    # Asking a CPU tensor which are due costs nothing. A GPU would make the host wait: it takes those that
    # have grown most, and leaves in place those of them that are not due.
    rows = (growth >= GROWTH).nonzero().flatten() if on_cpu else growth.topk(min(MOVES, len(growth))).indices
    due = growth[rows] >= GROWTH
    counts, sums = moments.counts[rows], moments.sums[rows]
    aside = due & _aside(moments, rows, counts, sums) if len(rows) else due

    moments.counts.copy_(total)
    # From the features, not from the rounded residuals: means then are exact to float64.
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
    """Of classes (m,), with `counts` and `sums`, say whose pivot may be an outlier, (m,)."""
    offsets = (sums / counts[:, None]).sub_(moments.pivots[rows]).square_().sum(1)
    return (counts < YOUNG - 1) | (offsets > ASIDE * (moments.squares[rows] / counts - offsets))


def _nearest_to_means(moments: Moments, x: Tensor, bucket: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Find the samples nearest to the means of their classes.

    Returns:
        (m,) classes in order, at least those `wanted`, and (m,) for each the row of x; any row where there is
        none.

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
    """Move pivots to samples that are `NEARER` to the means; arguments as those of `Moments.move`."""
    means, pivots = moments.means(rows), moments.pivots[rows]
    moves = (nearest - means).norm(dim=1) < NEARER * (pivots - means).norm(dim=1)
    if rows.device.type == "cpu":
        rows, nearest, counts, sums = rows[moves], nearest[moves], counts[moves], sums[moves]
    else:
        nearest = torch.where(moves[:, None], nearest, pivots)
    if len(rows):
        moments.move(rows, nearest, counts, sums)
