"""The precision of a solve: float32 under autocast, and no weights in half precision."""

from typing import NoReturn

import torch
from torch import Tensor, nn

from deq_collapse.errors import UserError

HALF = (torch.float16, torch.bfloat16)


def widened(cell: nn.Module, h0: Tensor) -> Tensor:
    """H0 as a solve takes it: no longer in half precision.

    Raises:
        UserError: if the cell's weights are.
    """
    if any(parameter.dtype in HALF for parameter in cell.parameters()):
        refuse_half()
    return h0.float() if h0.dtype in HALF else h0


def refuse_half(what: str = "a cell is solved") -> NoReturn:
    """Refuses weights in half precision, because of what is done in float32.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"{what} in float32, but its weights are of half precision; trainer.precision is one of"
        " 32-true, 64-true, bf16-mixed and 16-mixed."
    )
