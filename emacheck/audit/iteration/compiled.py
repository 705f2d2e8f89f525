"""Code that torch.compile compiled, which an audit would not run: it calls each module as it was written."""

from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch

from emacheck.audit.iteration.subject import Candidate, Subject
from emacheck.errors import UsageError


def require_uncompiled(subject: Subject, candidate: Candidate) -> None:
    """Refuse modules and losses that are compiled or call what is, on either side: what ran would not be what trains.

    Raises:
        UsageError: If there is one.
    """
    for model, loss in ((subject.model, subject.loss), (candidate.model, candidate.loss)):
        named = ((name or "the model", each) for name, each in model.named_modules())
        found = next((name for name, each in named if any(map(_compiles, _functions(each)))), None)
        if found is None and _compiles(loss):
            found = "the loss function"
        if found is not None:
            raise UsageError(
                f"found torch.compile in {found}, expected code as it was written: the audit calls modules one by one, "
                "so what is compiled would not run, and an error in it would pass. Give the model without it (as "
                "model._orig_mod does); what the compiler makes of it shows in the curves alone."
            )


def _functions(module: torch.nn.Module) -> Iterator[Any]:
    yield from vars(module).values()
    for each in type(module).__mro__:
        yield from vars(each).values()


def _compiles(what: Any) -> bool:
    """Tell whether this is a function that is compiled, or one that calls such a function of its file."""
    if not isinstance(what, FunctionType):
        return False
    called = (what.__globals__.get(name) for name in what.__code__.co_names)
    return any(map(_is_compiled, (what, *called)))


def _is_compiled(what: Any) -> bool:
    # Functions that are never to be compiled are marked as well.
    marked = isinstance(what, FunctionType) and hasattr(what, "_torchdynamo_orig_callable")
    return marked and not getattr(what, "_torchdynamo_disable", False)
