"""The reference pass: one iteration on the CPU in the accepted precision, with every call of every module recorded."""

import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from emacheck.audit.arithmetic.measure import continuous, real
from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.iteration.calls import LOSS, Asked, Call, intercepted, module_names
from emacheck.audit.iteration.checkpoints import Checkpoints, run_plainly
from emacheck.audit.iteration.draws import Draws
from emacheck.audit.iteration.layout import moved
from emacheck.audit.iteration.nested import snapshot, tensors
from emacheck.errors import UsageError

LossFunction = Callable[[torch.nn.Module, Any], Any]


@dataclass(slots=True, kw_only=True, eq=False)
class Capture:
    """What the reference did in one iteration.

    Attributes:
        calls: Every call, a caller after those it called; the last one is the loss itself.
        losses: The losses by name; the sum of them is what is differentiated.
        gradients: Gradient of every parameter that got one, by name.
        digests: A checksum of every output and output gradient, in order, for finding what does not repeat.
        foreign_draws: Random operators whose numbers could not be drawn on the CPU.
        checkpointed: Modules that activation checkpointing calls again in the backward pass.
        repeated: Those that a program called there by other means than ``torch.utils.checkpoint``.
        registered: Names of buffers that were not there before the iteration.
    """

    calls: list[Call]
    losses: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    digests: list[tuple[str, int]] = field(default_factory=list)
    foreign_draws: frozenset[str] = frozenset()
    checkpointed: frozenset[str] = frozenset()
    repeated: frozenset[str] = frozenset()
    registered: tuple[str, ...] = ()


def capture(
    model: torch.nn.Module,
    batch: Any,
    loss: LossFunction,
    *,
    precision: Precision,
    seed: int,
    backward: bool = True,
) -> Capture:
    """Run one iteration on the CPU and record it.

    Args:
        model: The network on the CPU; its buffers change as in any iteration, its parameters do not.
        batch: What the loss function takes.
        loss: Returns a scalar, or a mapping of scalars, from model and batch.
        precision: The accepted precision.
        seed: Seed of all random draws.
        backward: Run the backward pass as well.

    Returns:
        The record, from which each call can be repeated alone.
    """
    recorder = _Recorder(draws=Draws(seed))
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    model.zero_grad(set_to_none=True)
    top = Call(name=LOSS, index=0, kind="function", args=(snapshot(batch),), gradients_on=backward)
    recorder.stack.append(top)
    versions = {name: parameter._version for name, parameter in model.named_parameters()}
    with (
        recorder.draws,
        precision.emulated("cpu"),
        torch.set_grad_enabled(backward),
        intercepted(list(model.modules()), module_names(model), recorder),
    ):
        with run_plainly() as recorder.checkpoints, precision.context("cpu"):
            losses = named_losses(loss(model, snapshot(batch)))
        if any(parameter.grad is not None for parameter in model.parameters()):
            raise UsageError(
                "the loss function ran the backward pass itself, expected one that returns the loss; the audit runs "
                "the backward pass and the step."
            )
        recorder.finish(top, losses)
        recorder.forward = False
        if backward:
            (total(losses) * precision.loss_scale).backward()  # type: ignore[no-untyped-call]
    for call in recorder.calls:
        # Played back, its calls cannot be asked for again in the backward pass.
        call.gradients_on &= recorder.repeated.isdisjoint(child.name for child in call.children)
    gradients = {n: p.grad.detach() / precision.loss_scale for n, p in model.named_parameters() if p.grad is not None}
    rewritten = frozenset(name for name, p in model.named_parameters() if p._version != versions.get(name))
    for call in recorder.calls:
        call.rewritten = rewritten
    digests = recorder.digests + [(f"gradient of {name}", checksum(grad)) for name, grad in gradients.items()]
    model.zero_grad(set_to_none=True)
    return Capture(
        calls=recorder.calls,
        losses={name: value.detach() for name, value in losses.items() if value.requires_grad},
        gradients=gradients,
        digests=digests,
        foreign_draws=frozenset(recorder.draws.foreign),
        checkpointed=frozenset(recorder.checkpointed | recorder.repeated),
        repeated=frozenset(recorder.repeated),
        registered=tuple(name for name, _ in model.named_buffers(remove_duplicate=False) if name not in buffers),
    )


def forget(captured: Capture) -> None:
    """Drop what is needed only to repeat the calls, to save memory."""
    for call in captured.calls:
        call.args, call.kwargs, call.output = (), {}, None
        call.output_gradients, call.input_gradients, call.buffers = {}, {}, {}


def named_losses(output: Any) -> dict[str, torch.Tensor]:
    """Return a loss function's result as a mapping; a bare tensor is called ``loss``.

    Raises:
        UsageError: If there is no tensor with one element in it, or one with more that would go unheeded.
    """
    found = output if isinstance(output, Mapping) else {"loss": output}
    losses = {str(k): v for k, v in found.items() if isinstance(v, torch.Tensor) and v.numel() == 1}
    for name, value in found.items():
        if isinstance(value, torch.Tensor) and value.requires_grad and value.numel() != 1:
            raise UsageError(
                f"the loss function returned {name} with {value.numel()} elements, expected one: take its mean or "
                "sum, and of what a model returns beside its losses return the losses alone."
            )
    if not losses:
        raise UsageError(
            f"the loss function returned {type(output).__name__}, expected a scalar tensor or a mapping "
            "of them; of several outputs return the loss alone."
        )
    return losses


def total(losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the sum of those losses that carry gradient history."""
    parts = [value.sum() for value in losses.values() if value.requires_grad]
    if not parts:
        raise UsageError(
            "found no loss with a gradient history, so there is nothing to differentiate; expected a tensor that "
            "depends on the parameters of the model, not a number or a detached one."
        )
    return torch.stack([part.to(parts[0].dtype) for part in parts]).sum() if len(parts) > 1 else parts[0]


def checksum(tensor: torch.Tensor) -> int:
    """Return a CRC-32 over a tensor's bytes: equal tensors have equal checksums."""
    flat = real(tensor.detach()).cpu().contiguous().reshape(-1)
    if flat.stride() != (1,):  # one number that was expanded counts as contiguous, and has no bytes to view
        flat = flat.clone(memory_format=torch.contiguous_format)
    return zlib.crc32(flat.view(torch.uint8).numpy().data) if flat.numel() else 0


@dataclass(slots=True, kw_only=True, eq=False)
class _Recorder:
    draws: Draws
    stack: list[Call] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    digests: list[tuple[str, int]] = field(default_factory=list)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    checkpointed: set[str] = field(default_factory=set)
    forward: bool = True
    repeated: set[str] = field(default_factory=set)

    def __call__(self, asked: Asked, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.forward:
            self.repeated.add(asked.name)
            return asked.run(*args, **kwargs)
        call = Call(
            name=asked.name,
            index=self.counts[asked.name],
            kind=type(asked.module).__name__,
            args=snapshot(args),
            kwargs=snapshot(kwargs),
            needs_gradient=frozenset(p for p, t in tensors((args, kwargs)) if t.requires_grad),
            buffers={n: b.detach().clone() for n, b in asked.module.named_buffers()},
            direct=asked.direct,
            gradients_on=torch.is_grad_enabled(),
            draws=self.draws.position,
            depth=sum(self.counts.values()),
        )
        self.counts[asked.name] += 1
        if self.checkpoints.depth:
            self.checkpointed.add(asked.name)
        self.stack[-1].children.append(call)
        self.stack.append(call)
        try:
            output = asked.run(*args, **kwargs)
        finally:
            self.stack.pop()
        self.finish(call, output)
        return output

    def finish(self, call: Call, output: Any) -> None:
        """Record the output of a call, and its gradient when there is one."""
        call.output = snapshot(output)
        call.differentiable = frozenset(path for path, tensor in tensors(output) if tensor.requires_grad)
        if call.differentiable:
            # Integers are no steps of an accuracy but indices, which decide what the others mean.
            call.by_products = frozenset(p for p, t in tensors(output) if not t.requires_grad and continuous(t))
        called = {child.name for child in call.children}
        call.buffers = {n: b for n, b in call.buffers.items() if not _owned(call.name, n, called)}
        for path, tensor in tensors(output):
            self.digests.append((f"{call.label} output {path}".rstrip(), checksum(tensor)))
            if tensor.requires_grad:
                tensor.register_hook(partial(self._keep, call, path))  # type: ignore[no-untyped-call]
        self.calls.append(call)

    def _keep(self, call: Call, path: str, gradient: torch.Tensor) -> None:
        if self.forward:
            self.stack[-1].differentiates = True
        call.output_gradients[path] = moved(gradient)
        self.digests.append((f"{call.label} output gradient {path}".rstrip(), checksum(gradient)))


def _owned(caller: str, buffer: str, called: set[str]) -> bool:
    """Return whether a buffer, named from the caller, belongs to one of the modules it called."""
    full = buffer if caller.startswith("(") else f"{caller}.{buffer}"
    return any(full.startswith(f"{name}.") for name in called)
