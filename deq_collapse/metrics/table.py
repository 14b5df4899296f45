"""Every value that `NeuralCollapse` can compute: its name, its formula and its needs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from deq_collapse.metrics import functional as formulas
from deq_collapse.metrics.geometry import gram_distance
from deq_collapse.metrics.known import Known, Need


@dataclass(frozen=True)
class Row:
    """One value: `formula` applied to what is known, provided that all of `needs` are met."""

    formula: Callable[[Known], Tensor]
    needs: frozenset[Need] = frozenset()


def _row(formula: Callable[[Known], Tensor], *needs: Need) -> Row:
    return Row(formula, frozenset(needs))


TABLE: dict[str, Row] = {
    "nc0": _row(lambda k: formulas.nc0(k.rows), "classifier"),
    "nc1": _row(lambda k: k.nc1, "within"),
    "nc1_trace_ratio": _row(lambda k: formulas.nc1_trace_ratio(k.stats)),
    "cdnv": _row(lambda k: formulas.cdnv(k.stats)),
    "nc2_norm_means": _row(lambda k: formulas.norm_variation(k.means)),
    "nc2_norm_weights": _row(lambda k: formulas.norm_variation(k.rows), "classifier"),
    "nc2_angle_means": _row(lambda k: formulas.angle_deviation(k.gram)),
    "nc2_angle_weights": _row(lambda k: formulas.angle_deviation(k.rows_gram), "classifier"),
    "nc2_etf_means": _row(lambda k: formulas.etf_distance(k.gram)),
    "nc2_etf_weights": _row(lambda k: formulas.etf_distance(k.rows_gram), "classifier"),
    "nc3": _row(lambda k: formulas.nc3(k.weight, k.means), "classifier"),
    "nc3_product": _row(lambda k: formulas.nc3_product(k.product), "classifier"),
    "nc3_alignment": _row(lambda k: formulas.nc3_alignment(k.weight, k.means), "classifier"),
    "nc4": _row(lambda k: formulas.nc4(k.tally), "classifier", "samples"),
    "minority_cos_weights_mean": _row(
        lambda k: formulas.minority_cosines(k.rows_gram, k.minority).mean(),
        "classifier",
        "minority",
        "minority_pair",
    ),
    "minority_cos_weights_max": _row(
        lambda k: formulas.minority_cosines(k.rows_gram, k.minority).max(),
        "classifier",
        "minority",
        "minority_pair",
    ),
    "minority_cos_means_mean": _row(
        lambda k: formulas.minority_cosines(k.gram, k.minority_present).mean(), "minority", "minority_pair"
    ),
    "minority_cos_means_max": _row(
        lambda k: formulas.minority_cosines(k.gram, k.minority_present).max(), "minority", "minority_pair"
    ),
    "majority_minority_norm_weights": _row(
        lambda k: formulas.majority_minority_norm(k.rows, k.minority), "classifier", "minority"
    ),
    "majority_minority_norm_means": _row(
        lambda k: formulas.majority_minority_norm(k.means, k.minority_present), "minority"
    ),
    "cdnv_majority": _row(lambda k: formulas.cdnv_per_class(k.stats)[~k.minority_present].mean(), "minority"),
    "cdnv_minority": _row(lambda k: formulas.cdnv_per_class(k.stats)[k.minority_present].mean(), "minority"),
    "uniformity": _row(lambda k: formulas.uniformity(k.gram)),
    "seli_means": _row(lambda k: gram_distance(target=k.seli_means, gram=k.gram)),
    "seli_weights": _row(
        lambda k: gram_distance(target=k.seli_weights, gram=k.target_rows_gram), "classifier"
    ),
    "seli_logits": _row(lambda k: gram_distance(k.product, k.seli_logits), "classifier"),
    "gof_means": _row(lambda k: gram_distance(k.raw_gram, k.frame.means.diag())),
    "gof_weights": _row(lambda k: gram_distance(k.target_rows_gram, k.frame.weights.diag()), "classifier"),
    "gof_logits": _row(lambda k: gram_distance(k.raw_product, k.frame.logits.diag()), "classifier"),
    "relu_ce_means": _row(lambda k: gram_distance(k.raw_gram, k.relu_means)),
    "relu_ce_weights": _row(lambda k: gram_distance(k.target_rows_gram, k.relu_weights), "classifier"),
    "relu_ce_logits": _row(lambda k: gram_distance(k.raw_product, k.relu_logits), "classifier"),
    "nc5": _row(lambda k: formulas.nc5(k.raw_means, k.outside_mean), "outside"),
    "gnc_margin_means": _row(lambda k: formulas.one_vs_rest_margins(k.means).min()),
    "gnc_margin_weights": _row(lambda k: formulas.one_vs_rest_margins(k.rows).min(), "classifier"),
    "gnc2_means": _row(lambda k: formulas.kernel_variation(k.gram)),
    "gnc2_weights": _row(lambda k: formulas.kernel_variation(k.rows_gram), "classifier"),
    "unc3": _row(lambda k: formulas.duality_variation(k.weight, k.means), "classifier"),
    "cdnv_directional": _row(lambda k: formulas.cdnv_directional(k.stats, k.count_directions()), "samples"),
    "separation_fuzziness": _row(lambda k: formulas.separation_fuzziness(k.stats), "matrix"),
    "vci": _row(lambda k: formulas.vci(k.stats.within, k.stats), "matrix"),
    "effective_rank_means": _row(lambda k: formulas.effective_rank(k.stats.between[0].sqrt())),
    "effective_rank_features": _row(lambda k: formulas.effective_rank(k.total_roots), "matrix"),
    "nc4_fixed": _row(lambda k: k.nc4_fixed, "classifier", "fixed"),
    "coincident_pairs": _row(lambda k: formulas.coincident_pairs(k.stats)),
    "between_rank": _row(lambda k: formulas.between_rank(k.stats)),
    "skipped_samples": _row(lambda k: k.skipped),
    "absent_classes": _row(lambda k: (~k.stats.present).sum().double()),
}


def in_turn(names: Iterable[str]) -> list[str]:
    """Names in the order in which the least memory computes them: all that read one (K, K) matrix together,
    SELI's eigenproblem, which takes four of them, before that matrix exists, and that of Sigma_B last.
    """

    def turn(name: str) -> tuple[int, bool]:
        stages = ("weights" in name, name.endswith(("logits", "product")), name not in EIGENVECTORS, True)
        return stages.index(True), not name.startswith("seli")

    return sorted(names, key=turn)


# Computed from the eigenvectors of Sigma_B.
EIGENVECTORS = {"nc1", "between_rank", "effective_rank_means"}

# Computed only when requested by name: a least-squares problem per class, products in float64, (d, d)
# matrices that may not exist otherwise, and alternatives that other papers use in place of the above.
COSTLY = {
    "gnc_margin_means",
    "gnc_margin_weights",
    "gnc2_means",
    "gnc2_weights",
    "unc3",
    "cdnv_directional",
    "separation_fuzziness",
    "vci",
    "effective_rank_means",
    "effective_rank_features",
    "nc4_fixed",
}
