"""What a repeated call is given: its inputs, and for the calls that it makes what the reference recorded for them."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from emacheck.audit.iteration.calls import Asked, Call
from emacheck.audit.iteration.nested import kept_in_objects, numbers, replaced, tensors
from emacheck.audit.lockstep.parts import Part, Results
from emacheck.audit.lockstep.side import Side


class CallMismatchError(Exception):
    """A candidate's module calls other modules than the reference's does."""


@dataclass(slots=True, kw_only=True, eq=False)
class Player:
    """Answers the calls that a call makes with what the reference recorded for them."""

    call: Call
    side: Side
    results: Results
    at: int = 0

    def __call__(self, asked: Asked, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the recorded output of the next recorded call, and note the inputs that it was given."""
        if self.at >= len(self.call.children) or self.call.children[self.at].name != asked.name:
            expected = [child.name for child in self.call.children][self.at : self.at + 1] or ["no further call"]
            raise CallMismatchError(f"{self.call.label} called {asked.name}, where the reference has {expected[0]}")
        child = self.call.children[self.at]
        prefix = child.label
        self.at += 1
        given = dict(tensors((args, kwargs)))
        for path, tensor in (*given.items(), *kept_in_objects((args, kwargs))):
            self.results[Part("input of", f"{prefix} {path}")] = tensor.detach().clone()
        for path, number in numbers((args, kwargs)):
            self.results[Part("input of", f"{prefix} {path}")] = torch.tensor(number, dtype=torch.float64)
        output = self.side.bring(child.output)
        flowing = [(p, t) for p, t in given.items() if t.requires_grad]

        def answer(arrived: dict[str, torch.Tensor]) -> list[torch.Tensor]:
            for path, gradient in arrived.items():
                self.results[Part("gradient at", f"{prefix} {path}".rstrip())] = gradient.detach().clone()
            return [self._answer(child, path, tensor) for path, tensor in flowing]

        return computed(output, child.differentiable, answer, made_of=[tensor for _, tensor in flowing])

    def _answer(self, child: Call, path: str, tensor: torch.Tensor) -> torch.Tensor:
        gradient = child.input_gradients.get(path)
        if gradient is None or gradient.shape != tensor.shape:
            return torch.zeros_like(tensor)
        brought: torch.Tensor = self.side.bring(gradient)
        return brought.to(tensor.dtype)

    def finish(self) -> None:
        """Complain about recorded calls that were not made."""
        if self.at < len(self.call.children):
            raise CallMismatchError(f"{self.call.label} did not call {self.call.children[self.at].label}")


# Called with the gradients that arrive, by path; returns those that go on.
Answer = Callable[[dict[str, torch.Tensor]], Iterable[torch.Tensor]]


def computed(value: Any, paths: Collection[str], answer: Answer, *, made_of: Iterable[torch.Tensor] = ()) -> Any:
    """Return recorded values as if they had just been computed, so that they may be modified in place.

    Gradients do not go through a leaf, which may not be modified and would lay them out as it is laid out itself.

    Args:
        value: A nested value that nobody else uses.
        paths: Of those of its tensors through which gradients flow.
        answer: Called in the backward pass.
        made_of: What it was computed from: where the gradients go on to.
    """
    found = {path: tensor for path, tensor in tensors(value) if path in paths}
    if not found or not torch.is_grad_enabled():
        return value
    # Something must ask for gradients, or none is sent; it is none of the module's operators.
    with _disable_current_modes():
        asking = torch.zeros((), requires_grad=True)
    played = _Played.apply(answer, found, asking, *made_of)  # type: ignore[no-untyped-call]
    return replaced(value, dict(zip(found, played, strict=True)).get)


class _Played(torch.autograd.Function):
    """Returns recorded outputs and, backward, recorded gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        answer: Answer,
        outputs: dict[str, torch.Tensor],
        *inputs: torch.Tensor,  # noqa: ARG004
    ) -> tuple[torch.Tensor, ...]:
        ctx.answer, ctx.paths = answer, tuple(outputs)
        ctx.set_materialize_grads(False)
        return tuple(outputs.values())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> Any:
        pairs = zip(ctx.paths, gradients, strict=True)
        return (None, None, None, *ctx.answer({path: gradient for path, gradient in pairs if gradient is not None}))
