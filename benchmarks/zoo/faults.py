"""Faults for networks of any kind: those of the catalogue that are not EMANet's, and generic ones of the same severities.

Generic faults sit in one module of every kind that a network has, so that every kind of module is broken once.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name
from torch import nn

from emacheck.audit.arithmetic.precision import round_mantissa
from emacheck.audit.faults import Fault, NotApplicableError, catalogue
from emacheck.audit.faults.places import replace_operator, rounded, scaled, with_gradient
from emacheck.audit.faults.registry import MANTISSA
from emacheck.audit.iteration.calls import LOSS, OPTIMIZER
from emacheck.audit.iteration.nested import replaced
from emacheck.audit.iteration.subject import Candidate

# Tied to EMANet: its attention, and the images and label maps of mmsegmentation's samples.
TIED = ("attention", "data")
# In an attention of torch it is a holder of weights, and never called.
UNCALLED = nn.modules.linear.NonDynamicallyQuantizableLinear
RELATIVE = 1e-3
SHARES = 3
# What torch's fused attention takes, in this order.
ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
Break = Callable[[Candidate, float], str | None]


def faults(model: nn.Module, share: int) -> list[Fault]:
    """Return one of the :data:`SHARES` of the faults to try on a network; each state of the network gets another one.

    Of a fault with several severities the mildest is taken.
    """
    mildest: dict[str, Fault] = {}
    for each in catalogue().values():
        if each.kind not in TIED and "fp32" in each.precisions:
            mildest.setdefault(each.apply.__name__, each)
    found = [*mildest.values(), *_of_modules(model), *_of_the_whole()]
    return found[share % SHARES :: SHARES]


def _fault(name: str, kind: str, apply: Break, severity: float = 1.0, unit: str = "") -> Fault:
    return Fault(
        name=name,
        kind=kind,
        about="",
        severity=severity,
        unit=unit,
        imitates=None,
        precisions=tuple(MANTISSA),
        shows_at=1,
        apply=apply,
    )


# In one module.


def _of_modules(model: nn.Module) -> Iterator[Fault]:
    """Yield faults for the last module of each kind: a module without children, or an attention of torch."""
    kinds: dict[str, str] = {}
    for name, module in model.named_modules():
        own = not any(True for _ in module.children()) or isinstance(module, nn.MultiheadAttention)
        if own and not isinstance(module, UNCALLED):
            kinds[type(module).__name__.lstrip("_")] = name
    for kind, name in kinds.items():
        for what, change in IN_A_MODULE.items():
            severity = 1e-5 if what == "one weight corrupted" else RELATIVE
            yield _fault(f"{kind}: {what}", "module", _placed(change, name), severity, "relative")


def _placed(change: Callable[[Any, float], None], name: str) -> Break:
    def apply(candidate: Candidate, severity: float) -> str:
        change(candidate.model.get_submodule(name), severity)
        return name

    return apply


def _first(output: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Change the first tensor of what a module returns."""
    return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)


def _output_scaled(module: nn.Module, severity: float) -> None:
    module.register_forward_hook(lambda _, __, output: _first(output, lambda value: value * (1 + severity)))


def _last_element_wrong(module: nn.Module, severity: float) -> None:
    def change(value: torch.Tensor) -> torch.Tensor:
        return scaled(value, (..., -1), 1 + severity) if value.dim() else value * (1 + severity)

    module.register_forward_hook(lambda _, __, output: _first(output, change))


def _input_gradient_scaled(module: nn.Module, severity: float) -> None:
    def change(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        if not (inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].is_floating_point()):
            return inputs
        return (with_gradient(inputs[0], lambda gradient: gradient * (1 + severity)), *inputs[1:])

    module.register_forward_pre_hook(change)


def _output_in_bfloat16(module: nn.Module, severity: float) -> None:  # noqa: ARG001
    module.register_forward_hook(lambda _, __, output: _first(output, rounded))


def _approximated(module: nn.Module, severity: float) -> None:
    def change(value: torch.Tensor) -> torch.Tensor:
        return value * (1 + severity / 10 * torch.sin(50 * value))

    module.register_forward_hook(lambda _, __, output: _first(output, change))


def _nan_swallowed(module: nn.Module, severity: float) -> None:  # noqa: ARG001
    def change(value: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(value, nan=0.0, posinf=torch.inf, neginf=-torch.inf)

    module.register_forward_hook(lambda _, __, output: _first(output, change))


def _weight(module: nn.Module) -> nn.Parameter:
    weights = [weight for weight in module.parameters(recurse=False) if weight.requires_grad]
    if not weights:
        raise NotApplicableError("the module has no weight")
    return weights[0]


def _weight_gradient_scaled(module: nn.Module, severity: float) -> None:
    _weight(module).register_hook(lambda gradient: gradient * (1 + severity))


def _last_gradient_lost(module: nn.Module, severity: float) -> None:  # noqa: ARG001
    weights = [weight for weight in module.parameters(recurse=False) if weight.requires_grad]
    if len(weights) < 2:
        raise NotApplicableError("the module has no second weight")
    weights[-1].register_hook(torch.zeros_like)


def _one_weight_corrupted(module: nn.Module, severity: float) -> None:
    weight = _weight(module)
    with torch.no_grad():
        weight.view(-1)[0] += severity * weight.abs().max()


def _weight_in_bfloat16(module: nn.Module, severity: float) -> None:  # noqa: ARG001
    weight = _weight(module)
    with torch.no_grad():
        weight.copy_(weight.bfloat16())


def _setting(name: str, change: Callable[[Any], Any], kinds: tuple[type, ...] = (nn.Module,)) -> Any:
    def apply(module: nn.Module, severity: float) -> None:  # noqa: ARG001
        if not isinstance(module, kinds) or not isinstance(getattr(module, name, None), int | float | str):
            raise NotApplicableError(f"the module has no {name}")
        setattr(module, name, change(getattr(module, name)))

    return apply


NORMS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)
IN_A_MODULE: dict[str, Callable[[Any, float], None]] = {
    "output scaled": _output_scaled,
    "last element of every row wrong": _last_element_wrong,
    "input gradient scaled": _input_gradient_scaled,
    "output in bfloat16": _output_in_bfloat16,
    "output approximated to 1e-4": _approximated,
    "NaN swallowed": _nan_swallowed,
    "weight gradient scaled": _weight_gradient_scaled,
    "gradient of the last weight lost": _last_gradient_lost,
    "one weight corrupted": _one_weight_corrupted,
    "weight stored in bfloat16": _weight_in_bfloat16,
    "epsilon 1e-4": _setting("eps", lambda _: 1e-4, NORMS),
    "epsilon 1e-3": _setting("eps", lambda _: 1e-3, NORMS),
    "half as many groups": _setting("num_groups", lambda groups: max(groups // 2, 1), (nn.GroupNorm,)),
    "approximated by tanh": _setting("approximate", lambda _: "tanh", (nn.GELU,)),
    "slope 1 % off": _setting("negative_slope", lambda slope: 1.01 * slope, (nn.LeakyReLU,)),
    "alpha 1 % off": _setting("alpha", lambda alpha: 1.01 * alpha, (nn.ELU,)),
    "drops 1 % more": _setting("p", lambda share: 1.01 * share, (nn.Dropout,)),
    "sum instead of mean": _setting("mode", lambda _: "sum", (nn.EmbeddingBag,)),
    "corners aligned": _setting("align_corners", lambda corners: not corners, (nn.Upsample,)),
}


# In operators, the optimizer, the loss and the data.


def _matrix_products_in_bfloat16(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    def change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*(round_mantissa(a.float(), 7).to(a.dtype) for a in args), **kwargs)

    replace_operator(candidate, ("bmm", "mm", "addmm", "baddbmm"), change)


def _operator_scaled(*names: str) -> Break:
    def apply(candidate: Candidate, severity: float) -> None:
        replace_operator(candidate, names, lambda func, args, kwargs: func(*args, **kwargs) * (1 + severity))

    return apply


def _repeated_words_counted_once(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """A scatter without atomic additions: of the gradients of a word that occurs twice one remains."""

    def change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ARG001
        gradient, indices, count = args[:3]
        found = gradient.new_zeros(count, gradient.shape[-1])
        found[indices.reshape(-1)] = gradient.reshape(-1, gradient.shape[-1])
        return found

    replace_operator(candidate, ("embedding_dense_backward",), change)


def _causal_mask_leaks(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """The first word sees the second."""
    own = F.scaled_dot_product_attention

    takes = inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ATTENTION])

    def attention(*args: Any, **kwargs: Any) -> torch.Tensor:
        given = takes.bind_partial(*args, **kwargs).arguments
        if given.get("is_causal"):
            words = given["query"].shape[-2]
            mask = torch.ones(words, words, dtype=torch.bool, device=given["query"].device).tril()
            mask[0, 1] = True
            given |= {"is_causal": False, "attn_mask": mask}
        return own(**given)

    if not any(isinstance(module, nn.MultiheadAttention) for module in candidate.model.modules()):
        raise NotApplicableError("the model has no attention of torch")
    candidate.patch(F, "scaled_dot_product_attention", attention)


def _tied_weight_untied(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    model = candidate.model
    if getattr(model, "logits", None) is None or model.logits.weight is not model.words.weight:
        raise NotApplicableError("the model ties no weight")
    model.logits.weight = nn.Parameter(model.logits.weight.detach().clone())


def _in_the_groups(name: str, change: Callable[[Any], Any]) -> Break:
    def apply(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
        groups = [] if candidate.optimizer is None else candidate.optimizer.param_groups
        if not groups or name not in groups[0]:
            raise NotApplicableError(f"the optimizer has no {name}")
        for group in groups:
            group[name] = change(group[name])
        return OPTIMIZER

    return apply


def _largest_squares_not_kept(candidate: Candidate, severity: float) -> str:
    states = [] if candidate.optimizer is None else candidate.optimizer.state.values()
    if not any("max_exp_avg_sq" in state for state in states):
        raise NotApplicableError("the optimizer keeps no largest squares")
    return str(_in_the_groups("amsgrad", lambda _: False)(candidate, severity))


def _steps_counted_from_zero(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    states = [] if candidate.optimizer is None else list(candidate.optimizer.state.values())
    if not any("step" in state for state in states):
        raise NotApplicableError("the optimizer counts no steps")
    for state in states:
        state["step"] = torch.zeros_like(state["step"])
    return OPTIMIZER


def _second_moment_lost(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    names = ("exp_avg_sq", "square_avg", "sum")
    found = False
    for state in {} if candidate.optimizer is None else candidate.optimizer.state.values():
        for name in names:
            if name in state:
                state[name].zero_()
                found = True
    if not found:
        raise NotApplicableError("the optimizer keeps no squares")
    return OPTIMIZER


def _not_clipped(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    hooks = {} if candidate.optimizer is None else candidate.optimizer._optimizer_step_pre_hooks
    if not hooks:
        raise NotApplicableError("the gradients are not clipped")
    hooks.clear()
    return OPTIMIZER


def _loss_scaled(candidate: Candidate, severity: float) -> str:
    own = candidate.loss

    def loss(model: nn.Module, batch: Any) -> Any:
        return replaced(own(model, batch), lambda _, value: value * (1 + severity))

    candidate.loss = loss
    return LOSS


def _logits_in_bfloat16(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    own = candidate.loss

    def loss(model: nn.Module, batch: Any) -> Any:
        def called(*inputs: Any) -> Any:
            return _first(model(*inputs), rounded)

        return own(called, batch)  # type: ignore[arg-type]

    candidate.loss = loss
    return LOSS


def _labels_not_smoothed(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    own = F.cross_entropy

    def sharp(*args: Any, **named: Any) -> torch.Tensor:
        return own(*args, **{**named, "label_smoothing": 0.0})

    candidate.patch(F, "cross_entropy", sharp)
    return LOSS


def _samples_rolled(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """The labels belong to the next sample."""

    def change(batch: Any) -> Any:
        return (*batch[:-1], batch[-1].roll(1, 0)) if isinstance(batch, tuple) else batch.roll(1, -1)

    candidate.change_batch = change


def _first_sample_repeated(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    def change(batch: Any) -> Any:
        value = batch[0] if isinstance(batch, tuple) else batch
        same = value[:1].expand_as(value).clone()
        return (same, *batch[1:]) if isinstance(batch, tuple) else same

    candidate.change_batch = change


def _of_the_whole() -> Iterator[Fault]:
    relative = {"severity": RELATIVE, "unit": "relative"}
    yield _fault("matrix products in bfloat16", "operator", _matrix_products_in_bfloat16)
    for name in ("sigmoid", "tanh", "_softmax_backward_data", "sigmoid_backward", "cat"):
        yield _fault(f"{name.strip('_')} scaled", "operator", _operator_scaled(name), **relative)
    yield _fault("repeated words counted once", "operator", _repeated_words_counted_once)
    yield _fault("causal mask leaks one place", "operator", _causal_mask_leaks)
    yield _fault("tied weight untied", "weights", _tied_weight_untied)
    yield _fault(
        "betas 1 % nearer to 1", "optimizer", _in_the_groups("betas", lambda b: tuple(0.99 * x + 0.01 for x in b))
    )
    yield _fault("second beta 0.99", "optimizer", _in_the_groups("betas", lambda b: (b[0], 0.99)))
    yield _fault("alpha 0.91", "optimizer", _in_the_groups("alpha", lambda _: 0.91))
    yield _fault("epsilon ten times larger", "optimizer", _in_the_groups("eps", lambda eps: 10 * eps))
    yield _fault("learning rate decays", "optimizer", _in_the_groups("lr_decay", lambda _: 1e-4))
    yield _fault("AMSGrad switched off", "optimizer", _largest_squares_not_kept)
    yield _fault("steps counted from zero", "optimizer", _steps_counted_from_zero)
    yield _fault("second moment lost", "optimizer", _second_moment_lost)
    yield _fault("gradients not clipped", "optimizer", _not_clipped)
    yield _fault("loss scaled", "loss", _loss_scaled, **relative)
    yield _fault("logits in bfloat16", "loss", _logits_in_bfloat16)
    yield _fault("labels not smoothed", "loss", _labels_not_smoothed)
    yield _fault("labels of the next sample", "batch", _samples_rolled)
    yield _fault("first sample repeated", "batch", _first_sample_repeated)
