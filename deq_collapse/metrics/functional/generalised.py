"""Generalised neural collapse where a simplex ETF does not fit, d < K-1 (Jiang et al. 2023)."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def one_vs_rest_margins(rows: Tensor) -> Tensor:
    """Distance of every normalised row to the convex hull of the others; Jiang et al. 2023.

    Softmax codes maximise the smallest of them. Each class takes one non-negative least-squares problem: the
    point of a hull nearest to the origin is A a / sum(a) for the a >= 0 that minimises ||A a||^2 + (sum(a) -
    1)^2.

    Args:
        rows: (K, d), class means or classifier rows.

    Returns:
        (K,), in [0, 2]; K/(K-1) for a simplex ETF, 0 for a row inside the hull of the others.

    """
    # Imported here because the import takes seconds and these margins are rarely needed.
    from scipy.optimize import nnls

    unit = normalize(rows.double(), dim=1, eps=torch.finfo(torch.float64).tiny)
    margins = []
    for c in range(len(unit)):
        others = torch.cat([unit[:c], unit[c + 1 :]]) - unit[c]
        system = torch.cat([others.T, torch.ones(1, len(others)).to(others)])
        target = torch.zeros(len(system), dtype=torch.float64)
        target[-1] = 1
        weights = torch.from_numpy(nnls(system.cpu().numpy(), target.numpy())[0]).to(others)
        margins.append((weights @ others / weights.sum()).norm())
    return torch.stack(margins)
