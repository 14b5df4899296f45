"""NC4: the classifier decides like the nearest class mean (Papyan 2020)."""

import torch
from torch import Tensor

from deq_collapse.metrics.functional.rule import Rule, tiles
from deq_collapse.metrics.moments import full_precision
from deq_collapse.metrics.statistics import ClassStatistics


def decide(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """argmax(W h + b), (N,), computed in float32 or better.

    Args:
        features: (N, d).
        weight: (K, d).
        bias: (K,) or None.

    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    with full_precision(features.device.type):
        b = None if bias is None else bias.to(dtype)
        return torch.nn.functional.linear(features.to(dtype), weight.to(dtype), b).argmax(1)


def nearest_mean(stats: ClassStatistics, features: Tensor, labels: Tensor) -> Tensor:
    """The class with the nearest mean among the classes present, (N,).

    Distances are relative to the distance to the sample's own class, from the residual r = h - mu_y:
    ||h - mu_c||^2 - ||h - mu_y||^2 = ||mu_c - mu_y||^2 - 2 r (mu_c - mu_y)^T.
    Residuals are small when features collapse, so float32 suffices where the expanded square of h would
    cancel.

    Args:
        stats: the means, final over all ranks.
        features: (N, d).
        labels: (N,), classes present.

    """
    rule = Rule.of(stats, torch.promote_types(features.dtype, torch.float32), spread=False)
    return torch.cat([labels.new_empty(0)] + [rule.apply(x, y)[0] for x, y in tiles(features, labels)])


def nc4(tally: Tensor) -> Tensor:
    """Share of samples where argmax(W h + b) differs from the nearest class mean; Papyan, Han & Donoho 2020.

    Args:
        tally: (4, K) from `tally_samples`, added over batches and ranks; only the first two rows are used.

    Returns:
        Scalar in [0, 1]; 0 when the classifier always chooses the nearest class mean.

    Raises:
        ValueError: if no sample was given together with a weight.

    """
    counts = tally.sum(1)
    if not counts[0]:
        raise ValueError("nc4 needs samples that were given together with a weight")
    return counts[1] / counts[0]
