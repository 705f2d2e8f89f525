"""The decorator by which a function becomes a fault, and the catalogue that it enters."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.parallel import DistributedDataParallel

from emacheck.audit.iteration.calls import LOSS, MODEL, OPTIMIZER
from emacheck.audit.iteration.subject import Candidate
from emacheck.errors import UsageError

_WHOLES = {LOSS, MODEL, OPTIMIZER}
Break = Callable[[Candidate, float], str | None]

PROCESSES = "processes"
KINDS = ("kernel", "norm", "attention", "gradient", "optimizer", "loss", "data", "state", PROCESSES)


# Explicit bits of mantissa of the accepted precisions.
MANTISSA = {"fp32": 23, "tf32": 10, "fp16": 10, "bf16": 7}
Precisions = tuple[str, ...] | Callable[[float], tuple[str, ...]]


def finer_than(bits: float) -> tuple[str, ...]:
    """Return the precisions in which rounding to so many bits of mantissa is a defect, not the accepted arithmetic.

    Example:
        >>> finer_than(10), finer_than(7)
        (('fp32',), ('fp32', 'tf32', 'fp16'))
    """
    return tuple(name for name, kept in MANTISSA.items() if kept > bits)


class BrokenFaultError(Exception):
    """A fault's own code is wrong: it raises, or does not say where it sits."""


class NotApplicableError(Exception):
    """A model has nothing that a fault could sit in, such as a fault of batch norm in a model without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One defect in one severity.

    Attributes:
        name: The function's name, with the severity behind an ``@`` if there are several.
        kind: What it breaks, one of :data:`KINDS` or a word of one's own.
        about: One sentence: what is wrong.
        severity: How much of it.
        unit: What the severity counts.
        imitates: Address of a public report of such a defect, or None.
        precisions: The accepted precisions in which it is a defect.
        shows_at: The first iteration in which it can show.
        apply: Breaks a candidate in place; returns the module where the fault sits, None if it is no single one.
    """

    name: str
    kind: str
    about: str
    severity: float
    unit: str
    imitates: str | None
    precisions: tuple[str, ...]
    shows_at: int
    apply: Break

    def __call__(self, candidate: Candidate) -> str | None:
        """Break a candidate; return the module in which the fault sits.

        Raises:
            NotApplicableError: If the candidate has nothing that it could sit in.
            BrokenFaultError: If the fault's function raises anything else, or returns no name of a module.
        """
        try:
            module = self.apply(candidate, self.severity)
        except NotApplicableError:
            raise
        except Exception as error:
            raise BrokenFaultError(f"its function raises {type(error).__name__}: {error}") from error
        if module is not None and module not in _names(candidate.model) | _WHOLES:
            raise BrokenFaultError(f"its function returned {module!r}, expected the name of a module or None")
        return module


def _names(model: torch.nn.Module) -> set[str]:
    # As findings name modules: without what distributes the model.
    own = model.module if isinstance(model, DistributedDataParallel) else model
    return {name for name, _ in own.named_modules()}


CATALOGUE: dict[str, Fault] = {}


def fault(
    *,
    kind: str,
    severities: tuple[float, ...] = (1.0,),
    unit: str = "",
    imitates: str | None = None,
    precisions: Precisions = tuple(MANTISSA),
    shows_at: int = 1,
) -> Callable[[Break], Break]:
    """Register a function as a fault, once for each severity.

    Args:
        kind: What it breaks, such as ``norm`` or ``kernel``.
        severities: The ladder of severities, passed to the function as its second argument.
        unit: What a severity counts.
        imitates: Address of a public report of such a defect.
        precisions: The accepted precisions in which it is a defect, or a function that tells them from the severity,
            such as :func:`finer_than`. In others it is not tried: rounding to bfloat16 is what bf16 accepts.
        shows_at: The first iteration in which it can show; a later one is for the rules that judge curves.

    Returns:
        A decorator that leaves the function as it is. The function takes a
        :class:`~emacheck.audit.iteration.subject.Candidate` and a severity, breaks the candidate's model, optimizer,
        loss, batch or kernels in place, and returns the name of the module in which the fault sits, or None. Its
        docstring's first line says what is wrong. It raises :class:`NotApplicableError` for a model that it cannot
        break.

    Raises:
        UsageError: If a fault of that name exists already.

    Example:
        >>> @fault(kind="optimizer", severities=(1.01,), unit="times the learning rate")
        ... def learning_rate_of_the_example(candidate, severity):
        ...     "The learning rate is off."
        ...     for group in candidate.optimizer.param_groups:
        ...         group["lr"] *= severity
        >>> CATALOGUE.pop("learning_rate_of_the_example").about
        'The learning rate is off.'
    """

    def register(function: Break) -> Break:
        about = (function.__doc__ or "").strip().splitlines()
        for severity in severities:
            name = function.__name__ + (f"@{severity:g}" if len(severities) > 1 else "")
            if name in CATALOGUE:
                raise UsageError(
                    f"a fault named {name} exists already; give the function in {function.__module__} another name."
                )
            CATALOGUE[name] = Fault(
                name=name,
                kind=kind,
                about=about[0] if about else "",
                severity=severity,
                unit=unit,
                imitates=imitates,
                precisions=precisions(severity) if callable(precisions) else precisions,
                shows_at=shows_at,
                apply=function,
            )
        return function

    return register
