"""Values of `NeuralCollapse` for single classes and pairs of classes, for figures."""

import torch
from torch import Tensor

from deq_collapse.metrics.functional.simplex import cosines
from deq_collapse.metrics.functional.variability import cdnv_pairs
from deq_collapse.metrics.known import Known


def class_values(known: Known) -> dict[str, Tensor]:
    """Return values per class, with nan for classes that have no samples.

    Returns:
        (K,): `counts`, `variances` (v_c), `norms_means` (centred means), `nc1_trace_ratio` (v_c / Tr Sigma_B;
        inf where all means coincide) and `cdnv` (nan also where all other means coincide); with `nc4` (or
        `weighting="classes"`) and no `buffer_dtype`, `nc1` (`nc1_per_class`). (K, K): `cos_means`,
        `gram_means` (centred). With a classifier `norms_weights`, `cos_weights`, `gram_weights` and, with
        `nc4`, `accuracy` (K,).

    """
    stats = known.stats
    means = torch.full_like(stats.means, torch.nan)
    means[stats.present] = stats.centred
    gram = means @ means.T
    variances = torch.where(stats.present, stats.variances, torch.nan)
    between = stats.centred.square().sum(1).mean()
    cdnv = torch.full_like(stats.counts, torch.nan)
    cdnv[stats.present] = cdnv_pairs(stats).nanmean(1)
    values = {
        "counts": stats.counts,
        "variances": variances,
        "nc1_trace_ratio": torch.where(
            (between > stats.resolution**2) | ~stats.present, variances / between, torch.inf
        ),
        "cdnv": cdnv,
        "norms_means": means.norm(dim=1),
        "cos_means": cosines(gram),
        "gram_means": gram,
    }
    if known.spreads:
        values["nc1"] = known.nc1_per_class
    if known.classifier is not None:
        values["norms_weights"] = known.classifier.norm(dim=1)
        values["cos_weights"] = cosines(known.rows_gram)
        values["gram_weights"] = known.rows_gram
        if "samples" in known.given:
            values["accuracy"] = known.tally[2] / known.tally[0]
    return values
