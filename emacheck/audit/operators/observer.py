"""Judge every operator that a device runs, while it runs."""

import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.findings.operators import Input, OperatorError
from emacheck.audit.iteration.nested import tensors
from emacheck.audit.iteration.signature import (
    COPY,
    HOST,
    MEMORY,
    VIEW,
    bound,
    inputs,
    results,
    settings,
    why_not,
    written,
)
from emacheck.audit.lockstep.any_answer import why_free
from emacheck.audit.operators.deviation import (
    Deviation,
    Truths,
    chose_otherwise,
    has_nan,
    judged,
    place,
    swallowed,
)
from emacheck.audit.operators.host import HostCall, host_call
from emacheck.audit.operators.ranking import Ranking, Traits
from emacheck.printable import NAME_LENGTH, shortened

# Of the tensors that a call was given, and of the calls over the limit that are repeated.
SHOWN_INPUTS, REPEATED = 8, 2
VAGUE = "the accepted precision itself overflows, or its last bits decide an integer"
_SHORT = (torch.bfloat16, torch.float16)
_SILENT = {VIEW, MEMORY, COPY, HOST}


@dataclass(slots=True, kw_only=True)
class Where:
    """What is running at the moment.

    Attributes:
        module: The module, empty where that is not known.
        stepping: Whether the optimizer steps.
        of_nodes: The module that made each autograd node, by sequence number.
    """

    module: str = ""
    stepping: bool = False
    of_nodes: dict[int, str] = field(default_factory=dict)

    @property
    def phase(self) -> str:
        """The phase of the iteration."""
        if torch._C._current_graph_task_id() != -1:
            return "backward"
        return "optimizer" if self.stepping else "forward"

    def owner(self) -> str:
        """Return the module whose operator runs, in the backward pass by the node that its forward pass made."""
        if self.phase != "backward":
            # The node was made before its operator runs; an operator without one runs after the node of another.
            self.of_nodes.setdefault(torch.autograd._get_sequence_nr() - 1, self.module)  # type: ignore[attr-defined]
            return self.module
        node = torch._C._current_autograd_node()
        return self.module if node is None else self.of_nodes.get(node._sequence_nr(), self.module)


class Observer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Judge every operator that computes on a device, on the inputs that it gets.

    Each call is repeated on the CPU at once, in float64 and in the accepted precision, and nothing is kept of it but
    numbers.

    Args:
        device: The device.
        precision: The accepted precision.
        limit: The largest ratio that passes.
        limit_in_float32: That of a call without tensors of 16 bits, whatever the precision; None for the same.
        probed: Whether some calls belong to a probe that puts NaN into inputs, and so to no iteration.

    Attributes:
        ranking: What was found.
        where: What is running; kept up to date by whoever runs it.
        raised: The operator that raised last, empty if none did.

    Example:
        >>> observer, scores = Observer(torch.device("cpu"), Precision(), limit=30.0), torch.ones(4, 8)
        >>> with observer:
        ...     _ = torch.softmax(scores, dim=1)
        >>> [(row.operator, row.passes) for row in observer.ranking.ranked()]
        [('aten._softmax.default', True)]
    """

    def __init__(
        self,
        device: torch.device,
        precision: Precision,
        *,
        limit: float,
        limit_in_float32: float | None = None,
        probed: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ranking = Ranking()
        self.where = Where()
        self.raised = ""
        self._device, self._precision, self._probed = device, precision, probed
        self._limit, self._limit_in_float32 = limit, limit if limit_in_float32 is None else limit_in_float32
        self._repeated: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and judge it."""
        kwargs = kwargs or {}
        module, why = self.where.owner(), why_not(func, args, kwargs, self._device)
        if why is not None:
            if why not in _SILENT:
                self.ranking.skip(str(func), why)
            return self._run(func, args, kwargs)
        try:
            call: HostCall | None = host_call(func, args, kwargs, self._precision)
        except Exception as error:  # of tensors that cannot be copied, such as those of a type of their own
            call = None
            self.ranking.skip(str(func), f"its inputs cannot be brought to the CPU ({first_line(error)})")
        given = bound(func, args, kwargs)
        shown = [_described(name, tensor) for name, tensor in inputs(func, given)]
        output = self._run(func, args, kwargs)
        if call is not None:
            made = results(func, given, output)
            again = None if written(func) else lambda: results(func, given, func(*args, **kwargs))
            self._judge(call, made, shown, module=module, again=again)
        return output

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        try:
            return func(*args, **kwargs)
        except Exception:
            self.raised = str(func)
            raise

    def _judge(
        self,
        call: HostCall,
        made: dict[str, torch.Tensor],
        shown: list[Input],
        *,
        module: str,
        again: Callable[[], dict[str, torch.Tensor]] | None,
    ) -> None:
        name = str(call.func)
        try:
            with _disable_current_modes():
                poisoned = has_nan(call)
                should, found = (None, swallowed(call, made)) if poisoned else judged(call, made)
                chose = should is not None and chose_otherwise(should, made)
        except Exception as error:  # whatever the CPU says of an operator that it does not have
            self.ranking.skip(name, f"the CPU cannot repeat it ({first_line(error)})")
            return
        limit = self._limit_of(call, made)
        if poisoned and all(each.ratio <= limit for each in found):
            skip = self.ranking.skip_probe if self._probed else self.ranking.skip
            skip(name, "its inputs hold NaN")
            return
        if not found or (should is not None and should.undecided):
            self.ranking.skip(name, VAGUE if made else "it returns no tensor")
            if not found:
                return
        if chose:
            self.ranking.chose[name] = None
        traits = Traits(
            phase=self.where.phase,
            contiguous=all(each.contiguous for each in shown),
            dtype=next((each.dtype for each in shown), ""),
        )
        worst = max(found, key=_badness)
        over = not worst.ratio <= limit
        if over and (why := _why_free(call, made)):
            self.ranking.skip(name, why)
            return
        self.ranking.add(name, traits, over=over)
        known = self.ranking.worst.get(name)
        if known is None or _badness(worst) / limit > known.badness:
            index, value, truth = _place(made.get(worst.result), should, worst.result)
            self.ranking.worst[name] = OperatorError(
                operator=name, module=module, phase=traits.phase, result=worst.result, ratio=worst.ratio,
                limit=limit, error=worst.error, accepted=worst.accepted, measure=worst.measure, index=index,
                value=value, truth=truth, inputs=tuple(shown[:SHOWN_INPUTS]), settings=settings(call.given),
                calls=0, over=0, repeats=None if known is None else known.repeats,
            )  # fmt: skip
        if over and again is not None and self._repeated[name] < REPEATED:
            self._repeated[name] += 1
            self._repeat(name, {each.result: made[each.result] for each in found if each.result in made}, again)

    def _limit_of(self, call: HostCall, made: dict[str, torch.Tensor]) -> float:
        short = any(tensor.dtype in _SHORT for _, tensor in tensors((call.given, made)))
        return self._limit if short else self._limit_in_float32

    def _repeat(self, name: str, made: dict[str, torch.Tensor], again: Callable[[], dict[str, torch.Tensor]]) -> None:
        """Ask the device once more, and note whether it gives the same."""
        with suppress(Exception):  # a device that is broken may raise at any time
            second = again()
            same = all(
                torch.equal(tensor.cpu().nan_to_num(), second[result].cpu().nan_to_num())
                for result, tensor in made.items()
            )
            row = self.ranking.worst[name]
            self.ranking.worst[name] = replace(row, repeats=same and row.repeats is not False)


def _place(made: torch.Tensor | None, should: Truths | None, name: str) -> tuple[tuple[int, ...], float, float]:
    if made is None or should is None:
        return (), math.nan, math.nan
    with _disable_current_modes():  # what breaks the operators of a candidate is one
        return place(made, should, name)


def _why_free(call: HostCall, made: dict[str, torch.Tensor]) -> str:
    with _disable_current_modes():
        return why_free(call.func, call.given, made)


def _badness(found: Deviation) -> float:
    return math.inf if math.isnan(found.ratio) else found.ratio


def _described(name: str, tensor: torch.Tensor) -> Input:
    return Input(
        name=name,
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        strides=tuple(tensor.stride()) if tensor.layout is torch.strided else (),
        contiguous=tensor.layout is not torch.strided or tensor.is_contiguous(),
    )


def first_line(error: Exception) -> str:
    """Return the type of an error and the first line of what it says, cut where that is long."""
    first = shortened(next(iter(str(error).strip().splitlines()), ""), NAME_LENGTH)
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
