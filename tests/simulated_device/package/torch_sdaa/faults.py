"""Break the simulated device on purpose. A fault is one line of text: KIND [OPERATOR] [KEY=VALUE ...].

- ``scale _softmax by=1e-3``: every floating-point result of the operator is multiplied by 1 + by; with ``where=tile``
  only in one 16x16 tile of each result, with ``where=strided`` only in calls with an input that is not contiguous.
- ``crash _softmax``: the process ends by SIGABRT at the first call; ``signal=KILL`` or ``SEGV`` ends it otherwise.
- ``hang _softmax``: the first call never returns.
- ``missing _softmax``: every call raises NotImplementedError, worded as PyTorch words it.
- ``memory limit=BYTES``: each device has so much memory; beyond it torch.OutOfMemoryError.

Each but ``memory`` takes ``call=N``: only the N-th matching call of this process, counted from 1. Each takes
``rank=R``: only in the process with that RANK. OPERATOR is a name in ``aten`` without its overload, one overload
(``_softmax.out``), a collective (``tccl::allreduce``), or ``*`` for any; the last cannot be scaled, and of the
collectives only ``tccl::allreduce`` can. Structured operators arrive as their ``.out`` overload; ``calls()`` has the
names that a program really used.
"""

import os
import signal as signals
from contextlib import contextmanager
from dataclasses import dataclass

from torch_sdaa import _C

ALLOWED = {
    "scale": {"by", "where", "call", "rank"},
    "crash": {"signal", "call", "rank"},
    "hang": {"call", "rank"},
    "missing": {"call", "rank"},
    "memory": {"limit", "rank"},
}
COLLECTIVES = (
    *("allgather", "_allgather_base", "allreduce", "allreduce_coalesced", "alltoall_base", "barrier", "broadcast"),
    *("gather", "recv", "reduce", "reduce_scatter", "scatter", "send"),
)
TOTAL_MEMORY = _C.total_memory()


@dataclass(frozen=True)
class Injected:
    """A fault that is in force; ``id`` is None where another rank was meant."""

    text: str
    id: int | None

    @property
    def done(self):
        """How many calls were really broken so far."""
        return 0 if self.id is None else _C.fault_done(self.id)


def inject(text):
    """Put one fault in force.

    Raises:
        ValueError: If the text is no fault; a misspelled operator would break nothing and look healthy.
    """
    kind, op, options = _parsed(text)
    if "rank" in options and int(options["rank"]) != _rank():
        return Injected(text, None)
    if kind == "memory":
        _C.set_total_memory(int(options["limit"]))
        return Injected(text, None)
    call = int(options.get("call", 1 if kind in ("crash", "hang") else 0))
    number = getattr(signals, f"SIG{options.get('signal', 'ABRT')}")
    return Injected(
        text, _C.add_fault(kind, op, float(options.get("by", 0)), options.get("where", "all"), call, number)
    )


def heal(fault):
    """Take one fault back."""
    if fault.id is not None:
        _C.remove_fault(fault.id)
    elif fault.text.split()[0] == "memory":
        _C.set_total_memory(TOTAL_MEMORY)


@contextmanager
def injected(text):
    """Put one fault in force within a ``with`` block."""
    fault = inject(text)
    try:
        yield fault
    finally:
        heal(fault)


def calls():
    """Return how often each operator was called in this process, by its full name."""
    return dict(_C.calls())


def _parsed(text):
    kind, *words = text.split()
    if kind not in ALLOWED:
        raise ValueError(f"simulated fault {text!r}: found kind {kind!r}, expected one of {', '.join(ALLOWED)}")
    op = words.pop(0) if words and "=" not in words[0] else None
    options = dict(word.split("=", 1) for word in words)
    if unknown := options.keys() - ALLOWED[kind]:
        raise ValueError(f"simulated fault {text!r}: {kind} does not take {', '.join(sorted(unknown))}")
    if (op is None) != (kind == "memory"):
        raise ValueError(
            f"simulated fault {text!r}: expected {'no operator' if kind == 'memory' else 'an operator'} after {kind}"
        )
    required = {"scale": "by", "memory": "limit"}.get(kind)
    if required and required not in options:
        raise ValueError(f"simulated fault {text!r}: {kind} needs {required}=NUMBER")
    if int(options.get("call", 1)) < 1:
        raise ValueError(f"simulated fault {text!r}: calls are counted from 1")
    if options.get("where", "all") not in ("all", "tile", "strided"):
        raise ValueError(f"simulated fault {text!r}: where is all, tile or strided")
    if options.get("signal", "ABRT") not in ("ABRT", "KILL", "SEGV"):
        raise ValueError(f"simulated fault {text!r}: signal is ABRT, KILL or SEGV")
    if op is not None and not _exists(op, kind):
        raise ValueError(f"simulated fault {text!r}: there is no operator {op} that it could break")
    return kind, op, options


def _exists(op, kind):
    if kind != "scale" and (op == "*" or op.removeprefix("tccl::") in COLLECTIVES):
        return True
    if op == "tccl::allreduce":
        return True
    return op != "*" and _C.knows(op)


def _rank():
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
