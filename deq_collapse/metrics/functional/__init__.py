"""Formulas of neural collapse as pure functions over class statistics, class means and classifier rows."""

from deq_collapse.metrics.functional.centre import decide, nearest_mean, tally_disagreement
from deq_collapse.metrics.functional.duality import nc3, nc3_alignment, nc3_product
from deq_collapse.metrics.functional.imbalance import majority_minority_norm, minority_cosines
from deq_collapse.metrics.functional.simplex import angle_deviation, cosines, etf_distance, norm_variation
from deq_collapse.metrics.functional.variability import (
    between_rank,
    cdnv,
    cdnv_pairs,
    coincident_pairs,
    nc1,
    nc1_trace_ratio,
)

__all__ = [
    "angle_deviation",
    "between_rank",
    "cdnv",
    "cdnv_pairs",
    "coincident_pairs",
    "cosines",
    "decide",
    "etf_distance",
    "majority_minority_norm",
    "minority_cosines",
    "nc1",
    "nc1_trace_ratio",
    "nc3",
    "nc3_alignment",
    "nc3_product",
    "nearest_mean",
    "norm_variation",
    "tally_disagreement",
]
