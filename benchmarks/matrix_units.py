"""Healthy candidates that sum products as accelerators do: one after the other, or some at once and cut off.

A core of a GPU adds one product after the other to a float32 accumulator. A matrix unit adds some products at once: they and
the accumulator are cut to a few bits more than float32 has, and the sum is rounded towards zero (Fasi et al., 2021,
Numerical behavior of NVIDIA tensor cores, https://peerj.com/articles/cs-330/). These here are like that and no model of any
product. The sums of every convolution and matrix product are computed so, forward and backward.
"""

import ctypes
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from emacheck.audit.arithmetic.precision import round_mantissa
from emacheck.audit.faults.places import ReplacedOperator

SOURCE = Path(__file__).with_suffix(".c")
OPERATORS = ("convolution", "convolution_backward", "mm", "bmm", "addmm")
TF32_BITS = 10
Pair = tuple[int, int]


@cache
def _compiled() -> Any:
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "matrix_units.so"
        compiler = (sysconfig.get_config_var("CC") or "cc").split()
        flags = ["-O3", "-march=native", "-frounding-math", "-fno-trapping-math", "-shared", "-fPIC"]
        subprocess.run([*compiler, *flags, "-o", str(library), str(SOURCE), "-lm"], check=True)
        found = ctypes.CDLL(str(library)).matrix_product
    found.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_long] * 5 + [ctypes.c_int]
    found.restype = None
    return found


def cut_mantissa(value: torch.Tensor) -> torch.Tensor:
    """Cut float32 to the 10 bits of mantissa that TF32 has."""
    dropped = 23 - TF32_BITS
    kept = (value.contiguous().view(torch.int32) & ~((1 << dropped) - 1)).view(torch.float32)
    return torch.where(torch.isfinite(value), kept, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """How products are summed.

    Attributes:
        at_once: How many products are added to the accumulator at once.
        bits: How many bits of the largest addend the others are cut to; 0 for none.
        towards_zero: Whether the accumulator is rounded towards zero, else to nearest.
        factors: What is done to the factors first.
    """

    at_once: int
    bits: int = 0
    towards_zero: bool = True
    factors: Callable[[torch.Tensor], torch.Tensor] | None = None


UNITS = {
    "fp32": {
        "one product after the other": Unit(at_once=1, towards_zero=False),
        "8 at once, 25 bits": Unit(at_once=8, bits=25),
    },
    "tf32": {
        "8 at once, 25 bits": Unit(at_once=8, bits=25, factors=round_mantissa),
        "8 at once, 25 bits, factors cut off": Unit(at_once=8, bits=25, factors=cut_mantissa),
    },
    "bf16": {
        "8 at once, 25 bits": Unit(at_once=8, bits=25),
        "16 at once, 26 bits": Unit(at_once=16, bits=26),
        "8 at once, exact": Unit(at_once=8),
    },
    "fp16": {
        "8 at once, 25 bits": Unit(at_once=8, bits=25),
        "16 at once, 26 bits": Unit(at_once=16, bits=26),
        "8 at once, exact": Unit(at_once=8),
    },
}


@dataclass(slots=True, kw_only=True)
class MatrixUnit:
    """Every convolution without groups, and every matrix product, summed by a unit.

    Attributes:
        unit: How.
        calls: How many operators were computed so.
    """

    unit: Unit
    calls: int = field(default=0)

    def around(self) -> ReplacedOperator:
        """Return a context in which sums are computed so."""
        return ReplacedOperator(OPERATORS, self.change)

    def product(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Multiply two matrices of any float type of at most 32 bits; float32."""
        left, right = left.float(), right.float()
        if self.unit.factors is not None:
            left, right = self.unit.factors(left), self.unit.factors(right)
        left, right = left.contiguous(), right.contiguous()
        found = torch.empty(left.shape[0], right.shape[1])
        _compiled()(
            *(each.data_ptr() for each in (left, right, found)),
            *left.shape,
            right.shape[1],
            self.unit.at_once,
            self.unit.bits,
            self.unit.towards_zero,
        )
        return found

    def change(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute one operator."""
        name = func.overloadpacket.__name__
        groups = args[9] if name == "convolution_backward" else args[8] if name == "convolution" else 1
        if args[0].dtype is torch.float64 or groups != 1 or kwargs:
            return func(*args, **kwargs)
        self.calls += 1
        made = getattr(self, f"_{name}")(*args)
        kind = args[0].dtype
        return made.to(kind) if isinstance(made, torch.Tensor) else tuple(m if m is None else m.to(kind) for m in made)

    def _mm(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.product(left, right)

    def _bmm(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.product(*pair) for pair in zip(left, right, strict=True)])

    def _addmm(self, added: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return added.float() + self.product(left, right)

    def _convolution(self, value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *how: Any) -> Any:
        shape = Shape.of(weight, how)
        sums = self.product(weight.flatten(1), shape.terms(value.float()).transpose(0, 1).flatten(1))
        found = sums.reshape(-1, value.shape[0], *shape.places(value)).transpose(0, 1).contiguous()
        return found if bias is None else found + bias.float().view(1, -1, 1, 1)

    def _convolution_backward(self, gradient: torch.Tensor, value: Any, weight: Any, _: Any, *how: Any) -> Any:
        shape, wanted = Shape.of(weight, how), how[-1]
        of_value = of_weight = of_bias = None
        gradient = gradient.float()
        if wanted[0]:
            of_value = self._input_gradient(gradient, value, weight.float(), shape)
        if wanted[1]:
            terms = shape.terms(value.float())
            by_place = terms.permute(0, 2, 1).reshape(-1, terms.shape[1])
            of_weight = self.product(gradient.transpose(0, 1).flatten(1), by_place).reshape(weight.shape)
        if wanted[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_value, of_weight, of_bias

    def _input_gradient(self, gradient: torch.Tensor, value: Any, weight: Any, shape: "Shape") -> torch.Tensor:
        """Convolve the gradient, spread by the stride, with the weight turned round."""
        n, channels, *size = value.shape
        reach = [d * (k - 1) for d, k in zip(shape.dilation, shape.kernel, strict=True)]
        padded = [each + 2 * p for each, p in zip(size, shape.padding, strict=True)]
        spread = gradient.new_zeros(n, gradient.shape[1], padded[0] - reach[0], padded[1] - reach[1])
        rows, columns = ((each - 1) * s + 1 for each, s in zip(gradient.shape[2:], shape.stride, strict=True))
        spread[:, :, : rows : shape.stride[0], : columns : shape.stride[1]] = gradient
        alone = replace(shape, stride=(1, 1), padding=(0, 0))
        terms = alone.terms(functional.pad(spread, (reach[1], reach[1], reach[0], reach[0])))
        turned = weight.flip(2, 3).transpose(0, 1).flatten(1)
        found = self.product(turned, terms.transpose(0, 1).flatten(1)).reshape(channels, n, *padded).transpose(0, 1)
        up, left = shape.padding
        return found[:, :, up : up + size[0], left : left + size[1]].contiguous()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a convolution runs over; each is of rows and columns."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @classmethod
    def of(cls, weight: torch.Tensor, how: Sequence[Any]) -> "Shape":
        """Return that of an operator with this weight, and these arguments after the bias."""
        stride, padding, dilation = (tuple(each) for each in how[:3])
        return cls(kernel=(weight.shape[2], weight.shape[3]), stride=stride, padding=padding, dilation=dilation)

    def terms(self, value: torch.Tensor) -> torch.Tensor:
        """Return what each sum runs over: (n, channels x kernel, places)."""
        return functional.unfold(value, self.kernel, self.dilation, self.padding, self.stride)

    def places(self, value: torch.Tensor) -> tuple[int, ...]:
        """Return height and width of the output."""
        sizes = zip(value.shape[2:], self.padding, self.dilation, self.kernel, self.stride, strict=True)
        return tuple((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, p, d, k, s in sizes)
