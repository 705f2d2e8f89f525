"""Healthy candidates that compute 3x3 convolutions by a fast algorithm, as the libraries of devices may do in float32.

Winograd's F(m x m, 3 x 3) makes m x m outputs of a tile at once with fewer products (Lavin and Gray, 2016, arXiv
1509.09308); the matrices come from Toom and Cook's interpolation with the points that are commonly taken (Barabasz et
al., 2020, arXiv 1803.10986). The larger the tile, the more of the last digits are lost. With FFTs few are. Convolutions
with dilation are those of interleaved parts. Forward pass and both gradients are computed so.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import torch
from torch.nn import functional

from emacheck.audit.faults.places import ReplacedOperator

FFT = "FFT"
TILES = {"Winograd F(2x2, 3x3)": 2, "Winograd F(4x4, 3x3)": 4, "Winograd F(6x6, 3x3)": 6}
ALGORITHMS = (*TILES, FFT)
# Of these as many as a tile needs; the last one is at infinity.
POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2), Fraction(1, 2), Fraction(-1, 2))
KERNEL = 3
Matrices = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class FastConvolutions:
    """Dense 3x3 convolutions of stride 1 by another algorithm; everything else as it was.

    Args:
        name: One of :data:`ALGORITHMS`.

    Attributes:
        calls: How many convolutions, and backward passes of one, were computed so.
    """

    def __init__(self, name: str) -> None:
        self.name, self.calls = name, 0

    def __str__(self) -> str:
        return self.name

    def around(self) -> ReplacedOperator:
        """Return a context in which convolutions are computed so."""
        return ReplacedOperator(("convolution", "convolution_backward"), self.change)

    def change(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute one convolution, or the gradients of one."""
        backward = func.overloadpacket.__name__ == "convolution_backward"
        value, weight = args[1:3] if backward else args[:2]
        stride, padding, dilation, transposed, _, groups = args[4:10] if backward else args[3:9]
        same = padding == dilation and len(set(dilation)) == 1
        dense = tuple(weight.shape[2:]) == (KERNEL, KERNEL) and set(stride) == {1} and not transposed and groups == 1
        if not (same and dense and value.dtype.is_floating_point):
            return func(*args, **kwargs)
        self.calls += 1
        shape, parts = tuple(value.shape), dilation[0]
        if not backward:
            found = _joined(self._convolved(_parted(value, parts), weight), shape, parts)
            return found if args[2] is None else found + args[2].view(1, -1, 1, 1)
        gradient, wanted = args[0], args[-1]
        turned = weight.flip(2, 3).transpose(0, 1).contiguous()
        parted = _parted(gradient, parts)
        return (
            _joined(self._convolved(parted, turned), shape, parts) if wanted[0] else None,
            self._weight_gradient(_parted(value, parts), parted) if wanted[1] else None,
            gradient.sum((0, 2, 3)) if wanted[2] else None,
        )

    def _convolved(self, value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return the convolution of (n, c, h, w) with (k, c, 3, 3), padded by 1: (n, k, h, w)."""
        if self.name == FFT:
            return _by_fft(value, weight)
        return _by_winograd(value, weight, TILES[self.name])

    def _weight_gradient(self, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the weight: (k, c, 3, 3)."""
        if self.name == FFT:
            return _weight_gradient_by_fft(value, gradient)
        return _weight_gradient_by_winograd(value, gradient, TILES[self.name])


def _parted(value: torch.Tensor, parts: int) -> torch.Tensor:
    """Return every how many-th row and column as a sample of its own: (parts^2 n, c, h / parts, w / parts)."""
    n, c, height, width = value.shape
    value = functional.pad(value, (0, -width % parts, 0, -height % parts))
    height, width = value.shape[2] // parts, value.shape[3] // parts
    split = value.reshape(n, c, height, parts, width, parts)
    return split.permute(3, 5, 0, 1, 2, 4).reshape(parts * parts * n, c, height, width)


def _joined(value: torch.Tensor, shape: tuple[int, ...], parts: int) -> torch.Tensor:
    """Put the parts of a convolution of an input of this shape together again."""
    _, c, height, width = value.shape
    split = value.reshape(parts, parts, shape[0], c, height, width).permute(2, 3, 4, 0, 5, 1)
    whole = split.reshape(shape[0], c, height * parts, width * parts)
    return whole[:, :, : shape[2], : shape[3]].contiguous()


def _product(roots: Sequence[Fraction]) -> list[Fraction]:
    """Return the coefficients of the polynomial with these roots, that of the lowest power first."""
    found = [Fraction(1)]
    for root in roots:
        found = [low - root * high for low, high in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


@cache
def _matrices(tile: int, dtype: torch.dtype) -> Matrices:
    """Return A^T, G and B^T of F(tile, 3): y = A^T ((G g) * (B^T d)) is a convolution of d by g."""
    size = tile + KERNEL - 1
    points = POINTS[: size - 1]
    scales = [_value_at(_product([p for p in points if p != point]), point) for point in points]
    outputs = [[*(p**power for p in points), Fraction(power == tile - 1)] for power in range(tile)]
    weights = [[p**power / scale for power in range(KERNEL)] for p, scale in zip(points, scales, strict=True)]
    weights.append([Fraction(0)] * (KERNEL - 1) + [Fraction(1)])
    inputs = [[*_product([p for p in points if p != point]), Fraction(0)] for point in points]
    inputs.append(_product(points))
    a, g, b = (
        torch.tensor([[float(each) for each in row] for row in rows], dtype=dtype)
        for rows in (outputs, weights, inputs)
    )
    return a, g, b


def _value_at(polynomial: list[Fraction], point: Fraction) -> Fraction:
    return sum((each * point**power for power, each in enumerate(polynomial)), Fraction(0))


def _tiles(value: torch.Tensor, tile: int, down: int, across: int) -> torch.Tensor:
    """Return overlapping tiles of an input padded by 1: (n, c, down, across, tile + 2, tile + 2)."""
    size = tile + KERNEL - 1
    more = (down * tile + 1 - value.shape[2], across * tile + 1 - value.shape[3])
    return functional.pad(value, (1, more[1], 1, more[0])).unfold(2, size, tile).unfold(3, size, tile)


def _by_winograd(value: torch.Tensor, weight: torch.Tensor, tile: int) -> torch.Tensor:
    outputs, weights, inputs = _matrices(tile, value.dtype)
    n, c, height, width = value.shape
    down, across, size = -(-height // tile), -(-width // tile), tile + KERNEL - 1
    data = inputs @ _tiles(value, tile, down, across) @ inputs.T
    filters = weights @ weight @ weights.T
    products = filters.permute(2, 3, 0, 1).reshape(size * size, -1, c) @ data.permute(4, 5, 1, 0, 2, 3).reshape(
        size * size, c, -1
    )
    of_tiles = products.reshape(size, size, -1, n, down, across).permute(3, 2, 4, 5, 0, 1)
    found = (outputs @ of_tiles @ outputs.T).permute(0, 1, 2, 4, 3, 5)
    return found.reshape(n, -1, down * tile, across * tile)[:, :, :height, :width]


def _weight_gradient_by_winograd(value: torch.Tensor, gradient: torch.Tensor, tile: int) -> torch.Tensor:
    outputs, weights, inputs = _matrices(tile, value.dtype)
    k, height, width = gradient.shape[1:]
    down, across, size = -(-height // tile), -(-width // tile), tile + KERNEL - 1
    padded = functional.pad(gradient, (0, across * tile - width, 0, down * tile - height))
    data = inputs @ _tiles(value, tile, down, across) @ inputs.T
    back = outputs.T @ padded.unfold(2, tile, tile).unfold(3, tile, tile) @ outputs
    products = back.permute(4, 5, 1, 0, 2, 3).reshape(size * size, k, -1) @ data.permute(4, 5, 0, 2, 3, 1).reshape(
        size * size, -1, value.shape[1]
    )
    of_filters = products.reshape(size, size, k, value.shape[1]).permute(2, 3, 0, 1)
    return (weights.T @ of_filters @ weights).contiguous()


def _frequencies(value: torch.Tensor, shape: tuple[int, int], *, conjugate: bool = False) -> torch.Tensor:
    found = torch.fft.rfft2(value, s=shape)
    # A conjugate that is not written out is lost where a dispatch mode multiplies it.
    return found.conj_physical() if conjugate else found


def _by_fft(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    height, width = value.shape[2:]
    shape = (height + 2, width + 2)
    data = _frequencies(functional.pad(value, (1, 1, 1, 1)), shape)
    products = torch.einsum("nchw,kchw->nkhw", data, _frequencies(weight, shape, conjugate=True))
    return torch.fft.irfft2(products, s=shape)[:, :, :height, :width]


def _weight_gradient_by_fft(value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    shape = (value.shape[2] + 2, value.shape[3] + 2)
    data = _frequencies(functional.pad(value, (1, 1, 1, 1)), shape)
    products = torch.einsum("nchw,nkhw->kchw", data, _frequencies(gradient, shape, conjugate=True))
    return torch.fft.irfft2(products, s=shape)[:, :, :KERNEL, :KERNEL].contiguous()
