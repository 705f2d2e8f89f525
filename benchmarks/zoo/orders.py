"""Healthy candidates that sum in another order: operators compute the same thing, over terms that lie otherwise.

A CPU alone offers few orders: small tensors are summed by one thread whatever the number of threads is. So every sum is given
its terms in another order, in float32 as before: the inner dimension of a matrix product, the channels of a convolution,
what a norm, a softmax or a mean runs over, the samples over which a gradient is summed.
"""

from collections.abc import Callable
from typing import Any

import torch

from emacheck.audit.faults.places import ReplacedOperator

# Other orders of the terms, and sums of few terms each that are added one after the other, as tiles of a device do.
ORDERS = ("shuffled", "backwards", "in pieces")
PIECE = 16

Handler = Callable[["Order", Any, tuple[Any, ...], dict[str, Any]], Any]


class Order:
    """One order of summation.

    Args:
        name: One of :data:`ORDERS`.
        seed: Seed of what is shuffled.
    """

    def __init__(self, name: str, seed: int = 0) -> None:
        self.name, self._seed = name, seed
        self.handlers: dict[str, Handler] = {
            "mm": _matrix_product,
            "bmm": _matrix_product,
            "addmm": _added_product,
            "baddbmm": _added_product,
            "convolution": _convolution,
            "convolution_backward": _convolution_backward,
            "sum": _sum,
            "mean": _sum,
            "native_layer_norm": _layer_norm,
            "native_batch_norm": _over_samples,
            "_native_batch_norm_legit": _over_samples,
            "native_batch_norm_backward": _over_samples_backward,
            "_softmax": _softmax,
            "_log_softmax": _softmax,
            "_softmax_backward_data": _softmax_backward,
            "_log_softmax_backward_data": _softmax_backward,
            "embedding_dense_backward": _embedding_backward,
        }

    def __str__(self) -> str:
        return f"sums {self.name}" + (f" {self._seed}" if self.name == "shuffled" else "")

    def indices(self, length: int) -> torch.Tensor:
        """Return the order of so many terms."""
        if self.name == "shuffled":
            return torch.randperm(length, generator=torch.Generator().manual_seed(self._seed + length))
        if self.name == "backwards":
            return torch.arange(length - 1, -1, -1)
        # The same terms lie in other pieces of a sum.
        return torch.arange(length).roll(length // 3)

    def around(self) -> ReplacedOperator:
        """Return a context in which operators sum in this order."""

        def change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self.handlers[func.overloadpacket.__name__](self, func, args, kwargs)

        return ReplacedOperator(tuple(self.handlers), change)

    def along(self, tensor: torch.Tensor, axis: int, *, back: bool = False) -> torch.Tensor:
        """Return a tensor with the entries of an axis in this order, or back in their own."""
        order = self.indices(tensor.shape[axis])
        return tensor.index_select(axis, order.argsort() if back else order)


def _product(order: Order, func: Any, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices, or two batches of them."""
    found: torch.Tensor
    if order.name != "in pieces" or left.shape[-1] <= PIECE:
        found = func(order.along(left, -1), order.along(right, -2))
        return found
    pieces = zip(left.split(PIECE, -1), right.split(PIECE, -2), strict=True)
    found = func(*next(pieces))
    for one, other in pieces:
        found = found + func(one, other)
    return found


def _matrix_product(order: Order, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs) if kwargs else _product(order, func, *args)


def _added_product(order: Order, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if kwargs:
        return func(*args, **kwargs)
    plain = torch.ops.aten.mm if args[1].dim() == 2 else torch.ops.aten.bmm
    return args[0] + _product(order, plain, args[1], args[2])


def _convolution(order: Order, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value, weight, *others = args
    transposed, groups = args[6], args[8]
    if groups > 1:
        return func(*args, **kwargs)
    return func(order.along(value, 1), order.along(weight, 0 if transposed else 1), *others, **kwargs)


def _convolution_backward(order: Order, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    gradient, value, weight, *others = args
    transposed, groups = args[7], args[9]
    # A weight's gradient is summed over samples, an input's over the channels of the output.
    gradient, value = order.along(gradient, 0), order.along(value, 0)
    outputs = 1 if transposed else 0
    if groups == 1:
        gradient, weight = order.along(gradient, 1), order.along(weight, outputs)
    found = list(func(gradient, value, weight, *others, **kwargs))
    if found[0] is not None:
        found[0] = order.along(found[0], 0, back=True)
    if groups == 1 and found[1] is not None:
        found[1] = order.along(found[1], outputs, back=True)
    if groups == 1 and found[2] is not None:
        found[2] = order.along(found[2], 0, back=True)
    return tuple(found)


def _sum(order: Order, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value = args[0]
    if not value.is_floating_point() or not value.dim():
        return func(*args, **kwargs)
    axes = args[1] if len(args) > 1 and args[1] else range(value.dim())
    for axis in axes:
        value = order.along(value, axis)
    return func(value, *args[1:], **kwargs)


def _layer_norm(order: Order, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value, shape, weight, bias, epsilon = args
    if len(shape) != 1 or weight is None:
        return func(*args, **kwargs)
    found, *others = func(order.along(value, -1), shape, order.along(weight, 0), order.along(bias, 0), epsilon)
    return (order.along(found, -1, back=True), *others)


def _over_samples(order: Order, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found, *others = func(order.along(args[0], 0), *args[1:], **kwargs)
    return (order.along(found, 0, back=True), *others)


def _over_samples_backward(order: Order, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found, *others = func(order.along(args[0], 0), order.along(args[1], 0), *args[2:], **kwargs)
    return (None if found is None else order.along(found, 0, back=True), *others)


def _softmax(order: Order, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value, axis, *others = args
    return order.along(func(order.along(value, axis), axis, *others, **kwargs), axis, back=True)


def _softmax_backward(order: Order, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    gradient, output, axis, *others = args
    found = func(order.along(gradient, axis), order.along(output, axis), axis, *others, **kwargs)
    return order.along(found, axis, back=True)


def _embedding_backward(order: Order, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    gradient, indices, *others = args
    flat = gradient.reshape(indices.numel(), gradient.shape[-1])
    return func(order.along(flat, 0), order.along(indices.reshape(-1), 0), *others, **kwargs)
