"""Draws that are the same on every host: initial weights from integers, whoever asks for them in whatever order.

torch draws normal numbers with the vector instructions that the CPU has, so the same seed gives other weights on
another CPU, and a framework that draws once more before the model gives all other weights. Here every number comes from
the raw 64-bit integers of PCG64, whose stream numpy keeps, by sums of integers and a few operations in float64:

- a stream is seeded with SHA-256 over the run's seed and a name;
- a uniform number is the upper 53 bits of one integer times 2^-53;
- a normal number is the sum of eight 16-bit parts, of two integers, less its mean and over its standard deviation
  (P. Hall 1927: within 0.15 of the normal kurtosis, and never beyond 4.9 standard deviations).

torch adds in an order of its own as well, and changed it between 2.6 and 2.8. EMANet divides the ``bases`` it starts
with by their norms, so these are summed here, one square after the other.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._python_dispatch import TorchDispatchMode

PARTS = 8
MEAN = PARTS * (2**16 - 1) / 2
DEVIATION = math.sqrt(PARTS * (2.0**32 - 1) / 12)
CHUNK = 1 << 20
COMPARED = 16

Floats = npt.NDArray[np.float64]


def stream(seed: int, *names: object) -> np.random.PCG64:
    """Return the source of random integers that belongs to a seed and a name.

    Example:
        >>> stream(0, "conv1.weight").random_raw() == stream(0, "conv1.weight").random_raw()
        True
        >>> stream(0, "conv1.weight").random_raw() == stream(1, "conv1.weight").random_raw()
        False
    """
    digest = hashlib.sha256("\n".join(str(part) for part in (seed, *names)).encode()).digest()
    return np.random.PCG64(int.from_bytes(digest[:16], "little"))


def uniform(source: np.random.PCG64, count: int) -> Floats:
    """Return numbers from [0, 1).

    Example:
        >>> bool(0 <= uniform(stream(0), 1000).min() < uniform(stream(0), 1000).max() < 1)
        True
    """
    drawn: Floats = (source.random_raw(count) >> np.uint64(11)).astype(np.float64)
    return drawn * 2.0**-53


def normal(source: np.random.PCG64, count: int) -> Floats:
    """Return numbers of mean 0 and standard deviation 1; see the module.

    Example:
        >>> drawn = normal(stream(0), 100_000)
        >>> bool(abs(drawn.mean()) < 0.01), bool(abs(drawn.std() - 1) < 0.01)
        (True, True)
    """
    parts = source.random_raw(2 * count).astype("<u8", copy=False).view("<u2").reshape(PARTS, count)
    total: Floats = parts.sum(axis=0, dtype=np.uint32).astype(np.float64)
    return (total - MEAN) / DEVIATION


DISTRIBUTIONS = {"normal_": normal, "uniform_": uniform}


def norm(tensor: torch.Tensor, axis: int, *, keepdim: bool = False) -> torch.Tensor:
    """Return the Euclidean norm along one axis, sqrt(((x1^2 + x2^2) + x3^2) + ...), each operation rounded to its type.

    Example:
        >>> norm(torch.tensor([[3.0, 4.0], [6.0, 8.0]]), 1).tolist()
        [5.0, 10.0]
    """
    values = tensor.detach().numpy()
    # Sums of numpy part an axis as they like; only running sums have one order.
    total = np.add.accumulate(values * values, axis=axis).take([-1], axis=axis)
    root = torch.from_numpy(np.sqrt(total))
    return root if keepdim else root.squeeze(axis)


class OwnDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, ``normal_`` and ``uniform_`` fill CPU tensors with our own numbers, and norms are summed in order.

    The weights are then redrawn by name: :meth:`redraw` fills each parameter and buffer that still holds what it was
    filled with from the stream of its name, so that neither the order of building nor earlier draws matter. What
    was computed from a filled tensor, such as EMANet's normalised bases, is made of numbers that are counted by shape.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seed = seed
        self._counts: dict[tuple[Any, ...], int] = {}
        self._fills: dict[int, tuple[str, float, float, torch.Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Fill instead of drawing, sum norms in order, and leave every other operator alone."""
        name = func.overloadpacket.__name__
        target: Any = args[0] if args else None
        on_host = isinstance(target, torch.Tensor) and target.device.type == "cpu" and target.is_floating_point()
        if on_host and _is_euclidean(name, args, kwargs):
            return norm(target, args[2][0], keepdim=args[3:] == (True,))
        if name not in DISTRIBUTIONS or not on_host:
            return func(*args, **(kwargs or {}))
        first, second = (float(value) for value in (*args[1:3], *(0.0, 1.0)[len(args[1:3]) :]))
        key = (name, *target.shape)
        self._counts[key] = self._counts.get(key, 0) + 1
        self._fill(target, stream(self._seed, *key, self._counts[key]), name, first, second)
        return target

    def redraw(self, model: torch.nn.Module) -> None:
        """Fill each parameter and buffer from the stream of its name, with the distribution it was drawn from."""
        redrawn = set()
        for name, tensor in _tensors(model):
            place = tensor.untyped_storage().data_ptr()
            fill = self._fills.get(place)
            if fill is None or place in redrawn or not torch.equal(_sample(tensor), fill[3]):
                continue
            self._fill(tensor, stream(self._seed, name), *fill[:3])
            redrawn.add(place)

    def _fill(self, target: torch.Tensor, source: np.random.PCG64, name: str, first: float, second: float) -> None:
        scale, offset = (second, first) if name == "normal_" else (second - first, first)
        values = torch.empty(target.numel(), dtype=target.dtype)
        for start in range(0, target.numel(), CHUNK):
            count = min(CHUNK, target.numel() - start)
            drawn = DISTRIBUTIONS[name](source, count) * scale + offset
            values[start : start + count] = torch.from_numpy(drawn)
        target.detach().copy_(values.view(target.shape))
        if target.numel():
            self._fills[target.untyped_storage().data_ptr()] = (name, first, second, _sample(target))


class DrawsOfBuffers(OwnDraws):  # type: ignore[no-untyped-call]
    """While active, parameters are filled with zeros, for a model whose parameters are overwritten afterwards.

    Example:
        >>> with DrawsOfBuffers(seed=0):
        ...     layer = torch.nn.Linear(2, 2)
        >>> layer.bias.tolist()
        [0.0, 0.0]
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Fill a parameter with zeros; anything else is drawn."""
        if func.overloadpacket.__name__ in DISTRIBUTIONS and isinstance(args[0], torch.nn.Parameter):
            return args[0].detach().zero_()
        return super().__torch_dispatch__(func, types, args, kwargs)


def _is_euclidean(name: str, args: tuple[Any, ...], kwargs: Any) -> bool:
    """Tell whether an operator is the norm along one axis, in a type that numpy has."""
    if name != "linalg_vector_norm" or kwargs or len(args) < 3:
        return False
    order, axes = args[1:3]
    return bool(order == 2 and axes and len(axes) == 1 and args[0].numel() and args[0].dtype != torch.bfloat16)


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    named: Mapping[str, torch.Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    yield from ((name, named[name].detach()) for name in sorted(named) if named[name].numel())


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1)[:COMPARED].clone()
