"""The layer-peeled model by descent on W and H, for counts with few equal ones; verified by its dual."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deq_collapse.theory.loss import log_cross_entropy
from deq_collapse.theory.minimise import minimise

ACCURACY = 1e-3
"""Largest gap between the loss and its lower bound, relative to the loss."""
STARTS = 3


def solve_by_factors(
    counts: Sequence[float], roots: NDArray[np.float64], budget: float, biased: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The optimal logits (K, K) without their bias, and that bias (K,), of `convex.solve` under a budget.

    The program is convex in Z but not in factors of Z; its dual shows whether descent ended at the optimum:
    no Z within the budget has a loss below loss - <G, Z> - budget ||G diag(1/roots)||_2.

    Raises:
        ValueError: if no start ends there.
    """
    scale = torch.from_numpy(roots)
    generator = torch.Generator().manual_seed(0)
    k = len(counts)

    def logits(point: Sequence[Tensor]) -> Tensor:
        """The logits of W and H, scaled to spend the budget."""
        W, H = point[:2]
        scaled: Tensor = budget * (W / W.norm()) @ (H / H.norm()) / scale
        return scaled

    def loss(point: Sequence[Tensor]) -> Tensor:
        z = logits(point)
        return log_cross_entropy(z + point[2] if biased else z, counts)

    for _ in range(STARTS):
        start = [torch.randn((k, k), generator=generator, dtype=torch.float64) for _ in range(2)]
        zero = torch.zeros(k, 1, dtype=torch.float64)
        end = minimise(loss, [*start, zero] if biased else start, 5000, accuracy=1e-9)
        z, bias = logits(end).detach().requires_grad_(), end[2].detach() if biased else zero
        (gradient,) = torch.autograd.grad(log_cross_entropy(z + bias, counts), z)  # of the logarithm
        gap = (gradient * z).sum() + budget * torch.linalg.matrix_norm(gradient / scale, 2)
        if float(gap.detach()) <= ACCURACY:
            return z.detach().numpy(), bias.flatten().numpy()
    raise ValueError(
        "descent did not reach the layer-peeled optimum; are energies and counts within sane bounds?"
    )
