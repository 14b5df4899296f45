"""NC5: out-of-distribution features are orthogonal to the class means (Ammar 2024)."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


def nc5(means: Tensor, outside: Tensor) -> Tensor:
    """Mean over classes of abs cos(mu_c, mu_OOD), means not centred; Ammar et al. 2024.

    Args:
        means: (K, d) class means.
        outside: (d,) mean feature of an out-of-distribution set.

    Returns:
        Scalar in [0, 1]; 0 when orthogonal; the cosine of a zero mean is 0.

    """
    return cosine_similarity(means, outside[None], dim=1, eps=torch.finfo(means.dtype).tiny).abs().mean()
