"""Cross entropy of class-level logits, even if it is tiny."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def log_cross_entropy(logits: Tensor, counts: Sequence[float]) -> Tensor:
    """Logarithm of the mean over samples of the cross entropy of class-level logits (K, K), a column per
    class; exact even if the loss is too small for float64 to distinguish it from 0.
    """
    shares = torch.tensor(counts, dtype=logits.dtype)
    own = torch.eye(len(logits), dtype=torch.bool)
    rivals = (logits - logits.diagonal()).masked_fill(own, -torch.inf).logsumexp(0)
    # log log(1 + exp(r)) is r up to exp(r) / 2.
    each = torch.where(rivals < -30, rivals, functional.softplus(rivals.clamp(min=-30)).log())
    return (each + (shares / shares.sum()).log()).logsumexp(0)
