"""The calls that a repeated call makes: they are not run, but answered with what the reference recorded for them."""

from dataclasses import dataclass
from typing import Any

import torch

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
        if not torch.is_grad_enabled() or not child.differentiable:
            return output
        return self._with_gradients(child, prefix, output, flowing)

    def _with_gradients(self, child: Call, prefix: str, output: Any, flowing: list[tuple[str, torch.Tensor]]) -> Any:
        paths = [path for path, _ in tensors(output) if path in child.differentiable]
        found = dict(tensors(output))

        def note(gradients: tuple[torch.Tensor | None, ...]) -> list[torch.Tensor]:
            for path, gradient in zip(paths, gradients, strict=True):
                if gradient is not None:
                    self.results[Part("gradient at", f"{prefix} {path}".rstrip())] = gradient.detach().clone()
            return [self._answer(child, path, tensor) for path, tensor in flowing]

        anchor = torch.zeros((), device=self.side.device, requires_grad=True)
        played = _Played.apply(note, [found[p] for p in paths], anchor, *(t for _, t in flowing))  # type: ignore[no-untyped-call]
        carried = dict(zip(paths, played, strict=True))
        return replaced(output, carried.get)

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


class _Played(torch.autograd.Function):
    """Returns recorded outputs and, backward, recorded gradients."""

    @staticmethod
    def forward(ctx: Any, note: Any, outputs: list[torch.Tensor], *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:  # noqa: ARG004
        ctx.note = note
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> Any:
        return (None, None, None, *ctx.note(gradients))
