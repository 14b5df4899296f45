"""The Jacobian term, which keeps a cell's map from becoming steep at the state that a network reaches (Bai et
al., "Stabilizing Equilibrium Models by Jacobian Regularization", ICML 2021).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchdeq.loss import jac_reg

from deq_collapse.errors import UserError


def jacobian_term(f: Callable[[Tensor], Tensor], z: Tensor, weight: float) -> Tensor | None:
    """``||J_f(z)||_F^2 / dim z`` averaged over samples, estimated with one random vector; a scalar, or
    ``None`` if its weight is 0 or no gradient is required, which costs nothing.

    Its graph reaches what f holds, its weights and H0, but not z. It costs about one evaluation of f and its
    second derivative.
    """
    if not (weight and torch.is_grad_enabled()):
        return None
    z = z.detach().clone().requires_grad_()
    term: Tensor = jac_reg(f(z), z)
    return term


def check_jacobian_weight(weight: float) -> None:
    """Refuses a weight of the term that is not a number of at least 0.

    Raises:
        UserError: for such a weight.
    """
    if not 0 <= weight < math.inf:
        raise UserError(f"jacobian_weight is {weight}, but it is a number of at least 0.")
