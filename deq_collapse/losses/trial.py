"""A criterion tried before anything is trained by it."""

from typing import Any

import torch
from torch import Tensor, nn

from deq_collapse.errors import UserError


def check_loss(criterion: nn.Module, num_classes: int) -> None:
    """Tries a criterion on a sample of each class.

    Args:
        criterion: of logits (N, K) and labels (N,).
        num_classes: K.

    Raises:
        UserError: if its value cannot be trained on.
    """
    with torch.enable_grad():
        logits = torch.zeros(num_classes, num_classes).requires_grad_()
        value: Any = criterion(logits, torch.arange(num_classes))
    if not isinstance(value, Tensor):
        got = f"a {type(value).__name__}"
    elif value.ndim:
        got = f"values of shape {tuple(value.shape)}"
    elif not value.requires_grad:
        got = "a number that no logit changes"
    else:
        return
    raise UserError(
        f"the criterion {type(criterion).__name__} returns {got}, but a loss is one number that depends on"
        " the logits, a tensor without dimensions: take the mean over the batch."
    )
