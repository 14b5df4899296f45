"""Matching of parameter counts by width: several narrow blocks with as many parameters as one."""

from bisect import bisect_right
from collections.abc import Callable

import torch

from deq_collapse.errors import UserError
from deq_collapse.models.cells import Cell, Shape
from deq_collapse.runs.record import SAME_SIZE


def matched_widths(block: Callable[..., Cell], shape: Shape, depth: int) -> list[int]:
    """Inner widths at which ``depth`` blocks together have as many parameters as one block of usual width.

    They differ by at most 1, the wider ones first, so that a width that ``depth`` does not divide is still
    distributed fully. The caller's random state does not change.

    Args:
        block: makes a block; ``inner_width`` sets its width inside, and its parameters grow with it.
        shape: of one sample of H0.
        depth: number of blocks, at least 2.

    Raises:
        UserError: for a block that takes no ``inner_width``, and if the nearest total is off by more than 1%.
    """
    with torch.random.fork_rng(devices=[]):
        wanted = _parameters(block(shape))

        def count(width: int) -> int:
            return _parameters(_narrow(block, shape, width))

        high = 1
        while depth * count(high) <= wanted:
            high *= 2
        width = max(1, bisect_right(range(1, high), wanted, key=lambda width: depth * count(width)))
        low, step = count(width), count(width + 1) - count(width)
    rest = round((wanted - depth * low) / step) if step else 0
    wider = min(max(rest, 0), depth)
    total = depth * low + wider * step
    if abs(total - wanted) > SAME_SIZE * wanted:
        raise UserError(
            f"{depth} matched blocks have {total} parameters at the nearest inner width, {width}, and one"
            f" block has {wanted}, more than 1% away: choose a smaller depth or a wider H0."
        )
    return [width + 1] * wider + [width] * (depth - wider)


def _narrow(block: Callable[..., Cell], shape: Shape, width: int) -> Cell:
    try:
        return block(shape, inner_width=width)
    except TypeError as error:
        if "inner_width" not in str(error):
            raise
        raise UserError(
            f"matched blocks are narrowed by inner_width, which {type(block(shape)).__name__} does not take."
        ) from error


def _parameters(block: Cell) -> int:
    return sum(parameter.numel() for parameter in block.parameters() if parameter.requires_grad)
