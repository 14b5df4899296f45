"""Linear maps that commute with shifts, as one matrix per frequency; a plain matrix is a single frequency."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from deq_collapse.models.cells.base import Shape

# Pixels of a map up to which its Fourier transform is a matrix product.
SMALL = 200
Transform = Callable[[Tensor], Tensor]


def conv_symbol(weight: Tensor, height: int, width: int) -> Tensor:
    """The matrices that represent a convolution with circular padding, one for each frequency of a real map.

    Args:
        weight: kernel, (C', C, k, k) with k odd.
        height: of the map.
        width: of the map.

    Returns:
        Shape ``(height (width // 2 + 1), C', C)``, complex, for the frequencies of ``torch.fft.rfft2``, row
        by row (Sedghi, Gupta & Long, "The Singular Values of Convolutional Layers", ICLR 2019).
    """

    def waves(frequencies: int, size: int) -> Tensor:
        taps = torch.arange(weight.shape[-1], device=weight.device) - weight.shape[-1] // 2
        turns = torch.arange(frequencies, device=weight.device)[:, None] * taps
        phase = turns.to(weight.dtype) * (2 * math.pi / size)
        return torch.complex(phase.cos(), phase.sin())

    rows, columns = waves(height, height), waves(width // 2 + 1, width)
    return torch.einsum("oikl,hk,wl->hwoi", weight.to(rows.dtype), rows, columns).flatten(0, 1)


def matrices(weight: Tensor, shape: Shape) -> Tensor:
    """The real matrices of a linear map: their sums, products, transposes and inverses are those of the map.

    Args:
        weight: kernel (C', C, k, k) of a convolution with circular padding, or a matrix (d', d).
        shape: of a sample, (C, H, W) or (d,).

    Returns:
        ``[[Re, -Im], [Im, Re]]`` of :func:`conv_symbol`, shape (F, 2C', 2C); or the matrix, (1, d', d).
    """
    if len(shape) == 1:
        return weight[None]
    symbol = conv_symbol(weight, *shape[1:])
    return torch.cat([torch.cat([symbol.real, -symbol.imag], 2), torch.cat([symbol.imag, symbol.real], 2)], 1)


def linear_map(of: Tensor, shape: Shape) -> Callable[[Tensor], Tensor]:
    """The map of samples that some real matrices represent.

    Args:
        of: matrices, as returned by :func:`matrices`.
        shape: of an input sample.
    """
    if len(shape) == 1:
        return lambda x: F.linear(x, of[0])
    height, width = shape[1:]
    forth, back = (_by_matrices if height * width <= SMALL else _by_fft)(height, width, of)

    def apply(x: Tensor) -> Tensor:
        waves = torch.bmm(forth(x).permute(3, 0, 2, 1).flatten(2), of.mT)
        return back(waves.view(len(of), len(x), 2, of.shape[1] // 2).permute(1, 3, 2, 0))

    return apply


def _by_matrices(height: int, width: int, like: Tensor) -> tuple[Transform, Transform]:
    """The real Fourier transform of maps (N, C, H, W) to (N, C, 2, F), real parts first, and its inverse, as
    matrix products: they cost a fraction of FFTs for the few pixels of an H0.
    """
    forth, back = _fourier(height, width, like)
    return (
        lambda x: (x.flatten(2) @ forth).view(*x.shape[:2], 2, -1),
        lambda waves: (waves.flatten(2) @ back).view(*waves.shape[:2], height, width),
    )


def _by_fft(height: int, width: int, like: Tensor) -> tuple[Transform, Transform]:
    """The same as FFTs."""

    def forth(x: Tensor) -> Tensor:
        return torch.view_as_real(torch.fft.rfft2(x).flatten(2)).mT

    def back(waves: Tensor) -> Tensor:
        values = torch.view_as_complex(waves.mT.contiguous()).view(*waves.shape[:2], height, -1)
        maps: Tensor = torch.fft.irfft2(values, s=(height, width))
        return maps

    return forth, back


def _fourier(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices of the real Fourier transform, (H W, 2 F) with real parts first, and of its inverse."""
    pixels = torch.eye(height * width, dtype=like.dtype, device=like.device).view(-1, height, width)
    waves = torch.fft.rfft2(pixels).flatten(1)
    units = torch.eye(waves.shape[1], dtype=waves.dtype, device=like.device).view(-1, height, width // 2 + 1)
    back = [torch.fft.irfft2(factor * units, s=(height, width)).flatten(1) for factor in (1, 1j)]
    return torch.cat([waves.real, waves.imag], 1), torch.cat(back)
