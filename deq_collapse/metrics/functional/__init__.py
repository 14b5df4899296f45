"""Formulas of neural collapse as pure functions over class statistics, class means and classifier rows."""

from deq_collapse.metrics.functional.centre import decide, nc4, nearest_mean
from deq_collapse.metrics.functional.duality import duality_variation, nc0, nc3, nc3_alignment, nc3_product
from deq_collapse.metrics.functional.generalised import one_vs_rest_margins
from deq_collapse.metrics.functional.imbalance import (
    frequency_groups,
    majority_minority_norm,
    minority_cosines,
)
from deq_collapse.metrics.functional.outside import nc5
from deq_collapse.metrics.functional.samples import tally_directions, tally_samples
from deq_collapse.metrics.functional.separation import (
    Law,
    effective_rank,
    separation_fuzziness,
    separation_law,
    vci,
)
from deq_collapse.metrics.functional.simplex import (
    angle_deviation,
    cosines,
    etf_distance,
    kernel_variation,
    norm_variation,
    uniformity,
)
from deq_collapse.metrics.functional.variability import (
    between_rank,
    cdnv,
    cdnv_directional,
    cdnv_pairs,
    cdnv_per_class,
    coincident_pairs,
    nc1,
    nc1_per_class,
    nc1_trace_ratio,
)

__all__ = [
    "Law",
    "angle_deviation",
    "between_rank",
    "cdnv",
    "cdnv_directional",
    "cdnv_pairs",
    "cdnv_per_class",
    "coincident_pairs",
    "cosines",
    "decide",
    "duality_variation",
    "effective_rank",
    "etf_distance",
    "frequency_groups",
    "kernel_variation",
    "majority_minority_norm",
    "minority_cosines",
    "nc0",
    "nc1",
    "nc1_per_class",
    "nc1_trace_ratio",
    "nc3",
    "nc3_alignment",
    "nc3_product",
    "nc4",
    "nc5",
    "nearest_mean",
    "norm_variation",
    "one_vs_rest_margins",
    "separation_fuzziness",
    "separation_law",
    "tally_directions",
    "tally_samples",
    "uniformity",
    "vci",
]
