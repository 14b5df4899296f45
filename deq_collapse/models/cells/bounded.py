"""Linear maps whose operator norm stays at or below a bound while their weights train."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deq_collapse.models.cells.base import Shape
from deq_collapse.models.cells.norms import (
    circular_norm,
    dense_norm,
    leading_vectors,
    matrix_norm,
    orthonormal,
)

VECTORS = 8
"""Number of singular vectors tracked: once the bound is active, it pushes many singular values to the same
level.
"""
LIPSCHITZ = 0.9
"""The Lipschitz constant of cells, unless a configuration sets another."""
MARGIN = 1e-3
"""Relative distance between a norm's target and its bound: more than rounding and the error of a converged
iteration.
"""
DENSE = 1024
"""Largest sample size for which a norm is computed from the dense matrix, which takes a second at most."""


class Bounded(nn.Module):
    """A linear map of samples that ``scale`` reduces to an operator norm of at most ``bound``.

    In training the norm is tracked from below: each call of ``scale`` turns the stored singular vectors until
    the estimate grows by less than 0.1% a step, in at most 10 steps. On runs of `digits` the true norm was
    then at most 0.8% above the bound; one vector and one step per pass had left it 13% to 30% above. In eval
    mode the norm is computed once for each state of the weights, and the stored vectors do not change, so
    that measuring does not affect training. It is exact if a sample has at most ``DENSE`` numbers; otherwise
    it is iterated to convergence, and ``norm_bound`` bounds it from above.
    """

    bound: float
    singular_vectors: Tensor

    @abstractmethod
    def linear(self, x: Tensor) -> Tensor:
        """The map with unscaled weights."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Its transpose."""

    @abstractmethod
    def large_norm_bound(self) -> float:
        """An upper bound on the norm of ``linear`` for cases in which its dense matrix would be too large."""

    def follow(self, shape: Shape, bound: float) -> None:
        """Starts tracking the norm on samples of a shape; call it once the weights exist."""
        self.bound = bound
        self._settled: tuple[Tensor, Tensor, float | None] | None = None
        size = torch.Size(shape).numel()
        draw = torch.randn(min(VECTORS, size), size, generator=torch.Generator().manual_seed(0))
        self.register_buffer("singular_vectors", orthonormal(draw).view(-1, *shape))
        self.power_iteration(50)

    def power_iteration(self, steps: int = 10, tol: float = 1e-3) -> None:
        """Turns the stored singular vectors towards the leading ones, in at most ``steps`` steps."""
        with self._not_rounded():
            vectors = leading_vectors(self.linear, self.adjoint, self.singular_vectors, steps, tol)
        self.singular_vectors.copy_(vectors)

    def operator_norm(self) -> Tensor:
        """The norm of the unscaled map, from below; a scalar that carries a gradient."""
        if self.training:
            self.power_iteration()
        return self._norm_along(self.singular_vectors[:1] if self.training else self._settle()[0])

    def scale(self) -> Tensor:
        """The factor, at most 1, that reduces the norm to at most ``bound``; it carries a gradient."""
        return self._scale(self.operator_norm())

    @torch.no_grad()
    def norm_bound(self) -> float:
        """A guaranteed upper bound on the norm of the scaled map in eval mode."""
        leading, norm = self._settle()
        norm = self.large_norm_bound() if norm is None else norm
        return norm * float(self._scale(self._norm_along(leading)))

    def _scale(self, norm: Tensor) -> Tensor:
        aim = self.bound * (1 - MARGIN)
        return aim / norm.clamp_min(aim)

    def _norm_along(self, leading: Tensor) -> Tensor:
        leading = leading.clone()  # the next pass moves the vectors, and this graph may still be used
        with self._not_rounded():
            norm: Tensor = torch.linalg.vector_norm(self.linear(leading))
        return norm

    def _not_rounded(self) -> torch.autocast:
        """Autocast off: in half precision the bound would not hold, and CUDA has no `eigh`."""
        return torch.autocast(self.singular_vectors.device.type, enabled=False)

    @torch.no_grad()
    def _settle(self) -> tuple[Tensor, float | None]:
        """The leading singular vector for the current weights, and the norm if it is exact."""
        with (
            torch.inference_mode(False),
            self._not_rounded(),
        ):  # what is stored may be used with a gradient later
            weights = torch.cat([weight.detach().flatten() for weight in self.parameters()])
            if self._settled is None or not _same(self._settled[0], weights):
                self._settled = weights, *self._lead()
            return self._settled[1:]

    def _lead(self) -> tuple[Tensor, float | None]:
        if self.singular_vectors[0].numel() <= DENSE:
            norm, leading = dense_norm(self.linear, self.singular_vectors)
            return leading, norm
        return leading_vectors(self.linear, self.adjoint, self.singular_vectors, 1000, 1e-6)[:1], None


def _same(a: Tensor, b: Tensor) -> bool:
    return (a.dtype, a.device) == (b.dtype, b.device) and torch.equal(a, b)


class BoundedConv2d(Bounded, nn.Conv2d):
    """A 3x3 convolution without bias whose operator norm on maps of one size is at most ``bound``.

    The norm is that of the linear map with its zero padding, computed with the convolution and its transpose
    (Miyato 2018, applied to the operator itself instead of the reshaped kernel: spectral normalisation of the
    kernel to 0.9 left operator norms of 2.6).

    Args:
        shape: channels, height and width of the input map.
        bound: largest operator norm allowed, above 0.
        out_channels: of the output map; ``None`` for as many as the input has.
    """

    def __init__(self, shape: Shape, bound: float, out_channels: int | None = None) -> None:
        super().__init__(shape[0], out_channels or shape[0], 3, padding=1, bias=False)
        self.follow(shape, bound)

    def linear(self, x: Tensor) -> Tensor:
        """``W x`` with the weight unscaled, (N, C, H, W)."""
        return F.conv2d(x, self.weight, padding=1)

    def adjoint(self, y: Tensor) -> Tensor:
        """Its transpose."""
        return F.conv_transpose2d(y, self.weight, padding=1)

    def large_norm_bound(self) -> float:
        """See :func:`~deq_collapse.models.cells.norms.circular_norm`."""
        return circular_norm(self.weight, *self.singular_vectors.shape[2:])


class BoundedLinear(Bounded, nn.Linear):
    """A matrix without bias whose largest singular value is at most ``bound``.

    Args:
        shape: length of the input vectors.
        bound: largest singular value allowed, above 0.
        out_features: length of the output vectors; ``None`` for the same.
    """

    def __init__(self, shape: Shape, bound: float, out_features: int | None = None) -> None:
        super().__init__(shape[0], out_features or shape[0], bias=False)
        self.follow(shape, bound)

    def linear(self, x: Tensor) -> Tensor:
        """``W x`` with the weight unscaled, (N, d)."""
        return F.linear(x, self.weight)

    def adjoint(self, y: Tensor) -> Tensor:
        """Its transpose."""
        return y @ self.weight

    def large_norm_bound(self) -> float:
        """The norm itself."""
        return matrix_norm(self.weight.double())


def bounded_weight(of: nn.Conv2d | nn.Linear) -> Tensor:
    """The weight of a map, scaled if the map is bounded."""
    return of.weight * of.scale() if isinstance(of, Bounded) else of.weight
