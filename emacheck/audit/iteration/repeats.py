"""What activation checkpointing computes a second time, in the backward pass, must be what it was the first time."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from emacheck.audit.arithmetic.measure import FAR, SAME, Distance, Truth, distance
from emacheck.audit.iteration.calls import Asked, intercepted, module_names
from emacheck.audit.iteration.capture import checksum
from emacheck.audit.iteration.nested import tensors
from emacheck.audit.iteration.subject import Candidate

Inputs = tuple[tuple[str, int], ...]
Outputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Different:
    """A module that gave another output when its call was repeated with the same inputs.

    Attributes:
        kind: Its class.
        outputs: How far each output that differs is from that of the forward pass, by path.
    """

    kind: str
    outputs: dict[str, Distance]


@dataclass(slots=True, kw_only=True, eq=False)
class Repeats:
    """Watches a whole iteration for calls that are repeated in its backward pass.

    A repeated call is held against the call of the forward pass that had the same inputs, bit for bit. Where there is
    none, or where a call inside of it differs, the difference comes from elsewhere.

    Args:
        names: The modules to watch; outputs of their calls are kept on the host until the iteration is over.

    Attributes:
        different: What differed, by name of the module, in the order in which it was found.
    """

    names: Collection[str]
    different: dict[str, Different] = field(default_factory=dict)
    _forward: bool = True
    _before: dict[str, list[tuple[Inputs, Outputs]]] = field(default_factory=dict)
    _astray: list[bool] = field(default_factory=list)

    @contextmanager
    def watching(self, candidate: Candidate) -> Iterator[Candidate]:
        """Watch a candidate; yields what to run in its place."""
        if not self.names:
            yield candidate
            return

        def loss(model: torch.nn.Module, batch: Any) -> Any:
            found = candidate.loss(model, batch)
            self._forward = False
            return found

        self._forward, self._before, self._astray = True, {}, []
        names = module_names(candidate.model)
        watched = [module for module in candidate.model.modules() if names[id(module)] in self.names]
        with intercepted(watched, names, self):
            yield replace(candidate, loss=loss)
        self._before = {}

    def __call__(self, asked: Asked, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a call, and keep or compare its outputs."""
        given = tuple((path, checksum(tensor)) for path, tensor in tensors((args, kwargs)))
        self._astray.append(False)
        astray = True
        try:
            output = asked.run(*args, **kwargs)
            if self._forward:
                kept = {path: tensor.detach().to("cpu", copy=True) for path, tensor in tensors(output)}
                self._before.setdefault(asked.name, []).append((given, kept))
                astray = False
            else:
                astray = self._compared(asked, given, dict(tensors(output)), inherited=self._astray[-1])
        finally:
            self._astray.pop()
            if self._astray and astray:
                self._astray[-1] = True
        return output

    def _compared(self, asked: Asked, given: Inputs, output: Outputs, *, inherited: bool) -> bool:
        """Return whether a repeated call differs from that of the forward pass, and note it if it is to blame."""
        candidates = [kept for before, kept in self._before.get(asked.name, []) if before == given]
        away = [_apart(output, kept) for kept in candidates]
        if not away:
            return True
        if not all(away):
            return False
        if not inherited and asked.name not in self.different:
            nearest = min(away, key=lambda each: max(found.norm for found in each.values()))
            self.different[asked.name] = Different(kind=type(asked.module).__name__, outputs=nearest)
        return True


def _apart(output: Outputs, kept: Outputs) -> dict[str, Distance]:
    """Return how far outputs are from others, for those that are not equal bit for bit."""
    found = {
        path: distance(output[path], Truth(tensor=tensor)) if path in output else FAR
        for path, tensor in kept.items()
        if path not in output or checksum(output[path]) != checksum(tensor)
    }
    return {path: away for path, away in found.items() if away != SAME}
