"""Mixed precision on a CPU that rounds where an accelerator does.

Which operators autocast runs in 16 bits and which in float32 is a list of the device type. Accelerators share one list
in PyTorch (``AT_FORALL_*`` in ``aten/src/ATen/autocast_mode.h``, which out-of-tree devices use as well); the CPU has
another, which upsamples and takes a softmax in 16 bits and a cross entropy in float32. And in float16 a CPU without the
instructions takes minutes for an iteration. A CPU can be the reference of an accelerator only if it rounds at the
same places, and in a time that one waits for.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# The policies of torch 2.13; an operator for which the installed torch has no kernel under AutocastCUDA is left out.
LOWER = (
    "_convolution.deprecated", "_convolution", "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d",
    "conv_transpose2d.input", "conv_transpose3d.input", "convolution", "prelu", "addmm", "addmv", "addr", "matmul",
    "einsum", "mm", "mv", "linalg_vecdot", "linear", "addbmm", "baddbmm", "bmm", "chain_matmul", "linalg_multi_dot",
    "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
    "_scaled_dot_product_flash_attention", "scaled_dot_product_attention",
)  # fmt: skip
FLOAT32 = (
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "sinh",
    "tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus", "layer_norm", "native_layer_norm",
    "rms_norm", "group_norm", "frobenius_norm.dim", "nuclear_norm", "nuclear_norm.dim", "cosine_similarity",
    "poisson_nll_loss", "cosine_embedding_loss", "nll_loss", "nll_loss2d", "hinge_embedding_loss", "kl_div", "l1_loss",
    "smooth_l1_loss", "huber_loss", "mse_loss", "margin_ranking_loss", "multilabel_margin_loss", "soft_margin_loss",
    "triplet_margin_loss", "multi_margin_loss", "binary_cross_entropy_with_logits", "dist", "pdist", "cdist", "renorm",
    "logsumexp", "upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_nearest2d", "_upsample_nearest_exact2d",
    "upsample_nearest3d", "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d",
    "_upsample_bilinear2d_aa", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bicubic2d_aa",
)  # fmt: skip
# Their result is float32 unless the call names a type, as a cross entropy does of its softmax: that of its input.
FLOAT32_UNLESS_NAMED = (
    "prod", "prod.dim_int", "softmax.int", "log_softmax.int", "cumprod", "cumsum", "linalg_vector_norm",
    "linalg_matrix_norm", "linalg_matrix_norm.str_ord", "sum", "sum.dim_IntList",
)  # fmt: skip
WIDEST = (
    "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot", "grid_sampler", "index_put", "tensordot",
    "scatter_add",
)  # fmt: skip
# Accelerators run these layers in 16 bits as a whole (ATen/native/cudnn/RNN.cpp); of an LSTM the CPU has a kernel of
# oneDNN, of which autocast knows nothing, so that it stays in float32.
RECURRENT = tuple(f"{name}.{kind}" for name in ("lstm", "gru", "rnn_tanh", "rnn_relu") for kind in ("input", "data"))
# Called with the type of the result, by the overload that takes one.
NORMS = {"norm.Scalar": "ScalarOpt_dtype", "norm.ScalarOpt_dim": "ScalarOpt_dim_dtype"}
KEY = "AutocastCPU"
# Operators that sum products.
PRODUCTS = {
    "convolution",
    "convolution_overrideable",
    "convolution_backward",
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "addbmm",
}

Kernel = Callable[..., Any]

# What is registered, once for each context that is open.
_open: list[Any] = []


@contextmanager
def as_on_accelerators(precision: str) -> Iterator[None]:
    """Let the CPU round where accelerators do under autocast, forward and backward.

    Args:
        precision: ``bf16`` or ``fp16``; any other changes nothing.
    """
    with ExitStack() as stack:
        if precision in ("bf16", "fp16"):
            stack.enter_context(accelerator_lists())
        if precision == "fp16":
            stack.enter_context(SummedInFloat32())  # type: ignore[no-untyped-call]
        yield


@contextmanager
def accelerator_lists() -> Iterator[None]:
    """Let autocast on the CPU run each operator in the type in which autocast on an accelerator runs it.

    It changes autocast of the whole process until the outermost such context ends. Outside of autocast it changes one
    thing: attention and encoder layers in evaluation mode run operator by operator. Under CUDA's autocast torch leaves
    their fast path; under the CPU's it does not, and would compute all of a layer in float32.

    Example:
        >>> logits = torch.zeros(1, 3, dtype=torch.bfloat16)
        >>> with accelerator_lists(), torch.autocast("cpu"):
        ...     in_float32 = logits.softmax(1).dtype
        >>> with torch.autocast("cpu"):
        ...     in_float32, logits.softmax(1).dtype
        (torch.float32, torch.bfloat16)
    """
    _open.append(_open[-1] if _open else _register())
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        library = _open.pop()
        if not _open:
            library._destroy()


def policies() -> dict[str, Callable[[Any], Kernel]]:
    """Return every operator of the accelerators' lists that the installed torch has, with what makes its kernel."""
    table: dict[str, Callable[[Any], Kernel]] = {
        **dict.fromkeys(LOWER, _lower),
        **dict.fromkeys(FLOAT32, _float32),
        **dict.fromkeys(FLOAT32_UNLESS_NAMED, _float32_unless_named),
        **dict.fromkeys(WIDEST, _widest),
        **dict.fromkeys(NORMS, _norm),
    }
    return {name: policy for name, policy in table.items() if has_kernel(name, "AutocastCUDA")}


def has_kernel(name: str, key: str) -> bool:
    """Tell whether torch has a kernel of an operator, such as ``sum.dim_IntList``, under a dispatch key."""
    try:
        return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", key))
    except RuntimeError:  # there is no such operator
        return False


def _register() -> Any:
    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning only once for all operators")
        for name, kernel in _kernels():
            library.impl(name, kernel, KEY)
    return library


@cache
def _kernels() -> tuple[tuple[str, Kernel], ...]:
    """Return what the accelerators' lists have in the place of the CPU's; looking for it takes long."""
    wanted = policies()
    none = [(name, torch.library.fallthrough_kernel) for name in _listed_for_the_cpu() if name not in wanted]
    # What runs in 16 bits on both is left to torch, which casts each weight once.
    ours = [
        (name, policy(_overload(name)))
        for name, policy in wanted.items()
        if policy is not _lower or not has_kernel(name, KEY)
    ]
    recurrent = [(name, _recurrent(_overload(name))) for name in RECURRENT]
    return (*none, *ours, *recurrent)


def _listed_for_the_cpu() -> list[str]:
    names = {
        f"{schema.name}.{schema.overload_name}".rstrip(".").removeprefix("aten::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::")
    }
    # On an accelerator it is refused under autocast; a reference may as well compute it.
    return sorted(name for name in names - {"binary_cross_entropy"} if has_kernel(name, KEY))


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _eligible(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.is_floating_point() and item.dtype is not torch.float64


def _cast(item: Any, dtype: torch.dtype) -> Any:
    if isinstance(item, list | tuple):
        return type(item)(_cast(each, dtype) for each in item)
    return item.to(dtype) if _eligible(item) and item.is_cpu else item


def _cast_all(
    operator: Any, to: Callable[[tuple[Any, ...], dict[str, Any]], torch.dtype], *args: Any, **kwargs: Any
) -> Any:
    dtype = to(args, kwargs)
    with _without_autocast():
        return operator(*_cast(args, dtype), **{name: _cast(item, dtype) for name, item in kwargs.items()})


def _lower(operator: Any) -> Kernel:
    return partial(_cast_all, operator, lambda *_: torch.get_autocast_dtype("cpu"))


def _recurrent(operator: Any) -> Kernel:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        enabled = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            return operator.decompose(*_cast(args, torch.get_autocast_dtype("cpu")), **kwargs)
        finally:
            torch._C._set_mkldnn_enabled(enabled)

    return kernel


def _float32(operator: Any) -> Kernel:
    return partial(_cast_all, operator, lambda *_: torch.float32)


def _widest(operator: Any) -> Kernel:
    return partial(_cast_all, operator, _widest_type)


def _widest_type(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.dtype:
    flat = [each for item in (*args, *kwargs.values()) for each in (item if isinstance(item, list | tuple) else [item])]
    wide = any(_eligible(each) and each.dtype is torch.float32 for each in flat)
    return torch.float32 if wide else torch.get_autocast_dtype("cpu")


def _float32_unless_named(operator: Any) -> Kernel:
    names = [argument.name for argument in operator._schema.arguments]

    def kernel(*args: Any, **kwargs: Any) -> Any:
        named = dict(zip(names, args, strict=False)) | kwargs
        if _eligible(args[0]) and named.get("dtype") is None:
            at = names.index("dtype")
            args, kwargs = args[:at], {**kwargs, "dtype": torch.float32}
        with _without_autocast():
            return operator(*args, **kwargs)

    return kernel


def _norm(operator: Any) -> Kernel:
    packet = torch.ops.aten.norm
    typed = getattr(packet, NORMS[f"norm.{operator._overloadname}"])

    def kernel(value: torch.Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
        dtype = torch.float32 if _eligible(value) else value.dtype
        with _without_autocast():
            if typed is packet.ScalarOpt_dtype:
                return typed(value, p, dtype=dtype)
            return typed(value, p, dim, keepdim, dtype=dtype)

    return kernel


def _without_autocast() -> Any:
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU))


class SummedInFloat32(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sum every convolution and matrix product of float16 factors in float32 and round the result, as tensor cores do.

    A CPU without instructions for float16 has no such kernels of its own: its convolutions take a hundred times longer.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator."""
        if func.overloadpacket.__name__ not in PRODUCTS or not any(_is_float16(item) for item in args):
            return func(*args, **(kwargs or {}))
        result = func(*(item.float() if _is_float16(item) else item for item in args), **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            return result.half()
        return tuple(item.half() if isinstance(item, torch.Tensor) else item for item in result)


def _is_float16(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.dtype is torch.float16
