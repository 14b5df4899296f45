"""L-BFGS in float64 for functions of several tensors, with SciPy."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

Function = Callable[[Sequence[Tensor]], Tensor]


def minimise(
    function: Function,
    start: Sequence[Tensor],
    steps: int,
    watch: Callable[[Sequence[Tensor]], None] | None = None,
    accuracy: float = 1e-10,
) -> list[Tensor]:
    """A point at which no component of the gradient exceeds `accuracy`, or the point after `steps` steps.

    Args:
        function: scalar function of the tensors that autograd can differentiate.
        start: the initial tensors.
        steps: largest number of L-BFGS steps.
        watch: called with the point after every step.
        accuracy: of the gradient.
    """
    sizes = [t.numel() for t in start]

    def split(flat: NDArray[np.float64]) -> list[Tensor]:
        parts = torch.split(torch.from_numpy(flat.copy()), sizes)
        return [part.view(t.shape) for part, t in zip(parts, start, strict=True)]

    def value(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        point = [t.requires_grad_() for t in split(flat)]
        loss = function(point)
        gradients = torch.autograd.grad(loss, point)
        return float(loss.detach()), torch.cat([g.flatten() for g in gradients]).numpy()

    found = optimize.minimize(
        value,
        torch.cat([t.flatten() for t in start]).double().numpy(),
        jac=True,
        method="L-BFGS-B",
        callback=None if watch is None else lambda flat: watch(split(flat)),
        options={"maxiter": steps, "maxfun": 2 * steps, "maxcor": 30, "ftol": 0, "gtol": accuracy},
    )
    return split(found.x)
