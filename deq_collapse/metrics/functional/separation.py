"""More values from covariances: the law of data separation (He & Su 2023), VCI (Xu & Liu 2023), effective
rank (Roy & Vetterli 2007). All of them weight every sample equally.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from deq_collapse.metrics.statistics import ClassStatistics


def weighted_means(stats: ClassStatistics) -> Tensor:
    """Rows sqrt(n_c / N) (mu_c - mu) of the classes present, (K', d), where mu is the mean of all samples.

    Their sum of outer products is the between-class covariance of all samples.
    """
    shares = stats.seen(stats.counts) / stats.counts.sum()
    means = stats.seen(stats.means)
    return shares.sqrt()[:, None] * (means - shares @ means)


def separation_fuzziness(stats: ClassStatistics) -> Tensor:
    """Tr(Sigma_W pinv(Sigma_B)), Sigma_B = sum_c n_c/N (mu_c - mu)(mu_c - mu)^T; He & Su 2023.

    With equal counts this is K times `nc1`.

    Returns:
        Scalar in [0, inf]; 0 when collapsed; inf when all class means coincide.

    Raises:
        ValueError: if `stats` were made without Sigma_W.

    """
    if stats.scatter is None:
        raise ValueError("the fuzziness of separation needs the within-class covariance")
    rank = stats.between[0].numel()
    if not rank:
        return stats.means.new_tensor(math.inf)
    _, roots, directions = torch.linalg.svd(weighted_means(stats), full_matrices=False)
    return stats.scatter.along(directions[:rank] / roots[:rank, None])


class Law(NamedTuple):
    """How the fuzziness of separation falls from layer to layer.

    Attributes:
        rate: factor per layer; below 1 where the fuzziness falls.
        correlation: of its logarithm with the layer number; -1 where it follows the law exactly.

    """

    rate: Tensor
    correlation: Tensor


def separation_law(fuzziness: Tensor) -> Law:
    """Fit log D_l = log D_0 + l log(rate) by least squares; He & Su 2023.

    Args:
        fuzziness: (L,) of `separation_fuzziness` at equally spaced depths, layers or iterates, all > 0 and
            finite.

    Returns:
        Rate, and correlation: nan where the fuzziness does not change.

    Raises:
        ValueError: for fewer than two values, or values that have no logarithm.

    """
    if fuzziness.ndim != 1 or len(fuzziness) < 2 or not bool(((fuzziness > 0) & fuzziness.isfinite()).all()):
        raise ValueError("a law of separation needs the fuzziness at two depths or more, each > 0 and finite")
    logs = fuzziness.double().log()
    logs = logs - logs.mean()
    depth = torch.arange(len(logs)).to(logs)
    depth = depth - depth.mean()
    return Law(((depth @ logs) / (depth @ depth)).exp(), (depth @ logs) / (depth.norm() * logs.norm()))


def vci(within: Tensor, stats: ClassStatistics) -> Tensor:
    """Variability collapse index, 1 - Tr(pinv(Sigma_T) Sigma_B) / rank(Sigma_B); Xu & Liu 2023.

    Args:
        within: Sigma_W, (d, d), with all samples weighted equally.
        stats: the means; Sigma_B is that of `separation_fuzziness`, Sigma_T = Sigma_W + Sigma_B.

    Returns:
        Scalar in [0, 1], with an absolute error of about 1e-12; 0 when collapsed; 1 when all class means
        coincide.

    """
    rows, rank = weighted_means(stats), stats.between[0].numel()
    if not rank:
        return within.new_ones(())
    values, vectors = torch.linalg.eigh(torch.addmm(within, rows.T, rows))
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    explained = (rows @ vectors[:, kept]).square().sum(0) / values[kept]
    # Where the means are all there is, the smallest of their directions may be lost to rounding.
    index: Tensor = 1 - explained.sum() / min(rank, int(kept.sum()))
    return index.clamp(0, 1)


def effective_rank(roots: Tensor) -> Tensor:
    """exp(-sum_j p_j log p_j), p = roots / sum(roots), of singular values (n,); Roy & Vetterli 2007.

    Returns:
        Scalar in [1, n], n where all are equal; 0 if all are 0.

    """
    total = roots.sum()
    shares = torch.where(total > 0, roots / total, 0)
    return torch.where(total > 0, torch.special.entr(shares).sum().exp(), 0)
