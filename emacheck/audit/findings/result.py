"""What an audit says: errors of tensors, findings about modules, and the outcome; no torch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from emacheck.audit.findings.operators import OperatorFindings, read_operators
from emacheck.counted import counted
from emacheck.judge.verdict import Outcome, no_truth
from emacheck.printable import printable
from emacheck.strict_json import decode_value, strict

FORMAT_VERSION = 1
PHASES = ("forward", "loss", "backward", "optimizer", "buffers")
# The phase in which each kind of tensor is made.
PHASE_OF = {
    "output": "forward",
    "input of": "forward",
    "input after the call": "forward",
    "input gradient": "backward",
    "gradient at": "backward",
    "gradient": "backward",
    "weight": "forward",
    "start of buffer": "forward",
    "gradient history of output": "backward",
    "buffer": "buffers",
    "update": "optimizer",
    "state": "optimizer",
}
ITERATION = "(iteration)"
PROCESSES = "(processes)"
SHOWN_PLACES = 8
# A module alone on correct inputs; a whole iteration; a whole iteration of several processes.
ALONE = ("isolated", "evaluation")
LEVELS = (*ALONE, "end to end", "processes")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorError:
    """How far one tensor of the candidate is from the arbiter.

    Attributes:
        module: The module it belongs to; ``(loss)``, ``(model)`` and ``(optimizer)`` stand for themselves.
        kind: The module's class.
        tensor: Which tensor, such as ``output`` or ``gradient weight``.
        phase: One of :data:`PHASES`.
        level: ``isolated``, ``evaluation`` (isolated, in evaluation mode), ``end to end`` or ``processes`` (a whole
            iteration of several processes).
        batch: Number of the batch, 1-based.
        depth: Position of the module in the order of the forward pass.
        error: Of candidate c and arbiter a, in the measure that has the largest ratio.
        accepted: The same for the accepted precision, at least a unit roundoff.
        limit: The largest ratio that passes.
        measure: ``norm``: ||c - a|| / ||a||, ``peak``: max |c - a| / max |a|, ``slope``: |<c - a, a>| / <a, a>, or
            ``absolute``: ||c - a||.
        types: In which type it is, and in which on the reference, if these differ; empty otherwise.
    """

    module: str
    kind: str
    tensor: str
    phase: str
    level: str
    batch: int
    depth: int
    error: float
    accepted: float
    limit: float
    measure: str = "norm"
    types: str = ""

    @property
    def ratio(self) -> float:
        """Error over accepted error."""
        if self.error == 0:
            return 0.0
        return self.error / self.accepted if self.accepted else math.inf

    @property
    def passes(self) -> bool:
        """Whether the ratio is within the limit; NaN is not."""
        return self.ratio <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleFinding:
    """What the audit says about one module.

    Attributes:
        module: Its name in the model.
        kind: Its class.
        outcome: FAIL, or INCONCLUSIVE where it could not run.
        phase: The phase that broke first.
        introduced: True if the module alone is wrong on correct inputs, False if it may have inherited the error.
        tensor: Its worst tensor.
        ratio: Observed, error over accepted error.
        limit: The largest ratio that passes.
        count: How many of its tensors are over the limit.
        rank: The process to which it belongs, None for one process, or where it belongs to none of several.
        message: One sentence for a person.
    """

    module: str
    kind: str
    outcome: Outcome
    phase: str
    introduced: bool
    tensor: str = ""
    ratio: float = math.inf
    limit: float = 0.0
    count: int = 0
    rank: int | None = None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AuditResult:
    """The result of an audit; :func:`emacheck.audit_step` makes it.

    It is neither true nor false: ask for its ``outcome``. ``print`` shows every finding in a line.

    Attributes:
        device: Where the candidate ran.
        precision: The accepted precision.
        errors: One entry for each tensor that was compared.
        findings: What is wrong, the module that is most to blame first; empty if nothing is.
        notes: What limits what the outcome rests on.
        state_hash: SHA-256 of the shared state.
        batch_hashes: SHA-256 of each batch, where known.
        seconds: Wall-clock time of the audit.
        peak_memory: Largest resident memory of the process, in bytes.
        ranks: The devices of the processes that were audited as well, by rank; empty for none.
        operators: Which operators are wrong and whether that is proven; None where they were not looked at. It explains
            what the others say, and decides nothing.
    """

    device: str
    precision: str
    errors: tuple[TensorError, ...]
    findings: tuple[ModuleFinding, ...]
    notes: tuple[str, ...] = ()
    state_hash: str = ""
    batch_hashes: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_memory: int = 0
    ranks: tuple[str, ...] = ()
    operators: OperatorFindings | None = None

    @property
    def outcome(self) -> Outcome:
        """FAIL beats INCONCLUSIVE beats PASS; an audit that compared nothing is INCONCLUSIVE."""
        outcomes = {finding.outcome for finding in self.findings}
        for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
            if outcome in outcomes:
                return outcome
        return Outcome.PASS if self.errors else Outcome.INCONCLUSIVE

    @property
    def phase(self) -> str | None:
        """The phase of an iteration that broke first, None if none did."""
        broken = {finding.phase for finding in self.findings if finding.outcome is Outcome.FAIL}
        return next((phase for phase in PHASES if phase in broken), None)

    @property
    def module(self) -> str | None:
        """The module that is most to blame, None if none is."""
        return next((finding.module for finding in self.findings if finding.outcome is Outcome.FAIL), None)

    @property
    def worst(self) -> TensorError | None:
        """The tensor that is farthest over its limit, or closest to it."""
        return max(self.errors, key=badness, default=None)

    @property
    def where(self) -> str:
        """Return in words what was audited: the device, and the processes if there were any."""
        if not self.ranks:
            return f"on {self.device}"
        places = list(dict.fromkeys(self.ranks))
        more = " ..." if len(places) > SHOWN_PLACES else ""
        return f"on {self.device} and of {len(self.ranks)} processes on {', '.join(places[:SHOWN_PLACES])}{more}"

    def __bool__(self) -> NoReturn:  # noqa: PLE0304 - it refuses to be either
        no_truth("the result of an audit")

    def __repr__(self) -> str:
        """Say the outcome and what is most to blame, in one line."""
        blamed = f": {self.findings[0].message}" if self.findings else ""
        said = f"<AuditResult {self.outcome} {self.where} in {self.precision}{blamed}>"
        return printable(said, length=None)

    def __str__(self) -> str:
        """Say in lines what was found; ``errors`` holds every tensor."""
        compared = f"{counted(len(self.errors), 'tensor')} compared"
        lines = [f"{self.outcome} audit {self.where} in {self.precision}: {compared}"]
        lines += [f"{finding.outcome} {finding.message}" for finding in self.findings]
        lines += [] if self.operators is None else self.operators.lines
        lines += [f"note: {note}" for note in self.notes]
        return printable("\n".join(lines), newlines=True, length=None)

    def to_json(self) -> dict[str, Any]:
        """Return all of it in types that strict JSON has."""
        worst = self.worst
        fields: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "outcome": self.outcome.value,
            "phase": self.phase,
            "module": self.module,
            "worst": None if worst is None else _error_fields(worst),
            "device": self.device,
            "ranks": list(self.ranks),
            "precision": self.precision,
            "state_hash": self.state_hash,
            "batch_hashes": list(self.batch_hashes),
            "findings": [{**asdict(finding), "outcome": finding.outcome.value} for finding in self.findings],
            "notes": list(self.notes),
            "operators": None if self.operators is None else self.operators.to_json(),
            "seconds": round(self.seconds, 3),
            "peak_memory_bytes": self.peak_memory,
            "tensors": [_error_fields(error) for error in self.errors],
        }
        same: dict[str, Any] = strict(fields)
        return same


def read_result(fields: Mapping[str, Any]) -> AuditResult:
    """Return the result that :meth:`AuditResult.to_json` wrote.

    Example:
        >>> result = AuditResult(device="cpu", precision="fp32", errors=(), findings=())
        >>> read_result(result.to_json()) == result
        True
    """
    return AuditResult(
        device=fields["device"],
        precision=fields["precision"],
        errors=tuple(TensorError(**_decoded(row, drop=("ratio",))) for row in fields["tensors"]),
        findings=tuple(
            ModuleFinding(**{**_decoded(row), "outcome": Outcome(row["outcome"])}) for row in fields["findings"]
        ),
        notes=tuple(fields["notes"]),
        state_hash=fields["state_hash"],
        batch_hashes=tuple(fields["batch_hashes"]),
        seconds=fields["seconds"],
        peak_memory=fields["peak_memory_bytes"],
        ranks=tuple(fields["ranks"]),
        operators=None if fields["operators"] is None else read_operators(fields["operators"]),
    )


def _decoded(row: Mapping[str, Any], drop: tuple[str, ...] = ()) -> dict[str, Any]:
    numbers = {name: decode_value(row[name]) for name in ("error", "accepted", "limit", "ratio") if name in row}
    return {name: value for name, value in {**row, **numbers}.items() if name not in drop}


def _error_fields(error: TensorError) -> dict[str, Any]:
    # asdict copies every value deeply, which takes a second for the thousands of tensors of an audit.
    names = (name for name in (*TensorError.__dataclass_fields__, "ratio") if name != "types" or error.types)
    return {name: getattr(error, name) for name in names}


def badness(error: TensorError) -> float:
    """Return how many times its limit a tensor's ratio is; infinite where it is no number."""
    return _number(error.ratio) / error.limit


def find(errors: Sequence[TensorError], troubles: Iterable[ModuleFinding] = ()) -> tuple[ModuleFinding, ...]:
    """Turn errors over their limit into findings, the module most to blame first.

    A module that is wrong when it runs alone introduces the error. What only the whole iteration shows is inherited if
    some module introduces an error, and otherwise comes from between the modules.

    Args:
        errors: All tensors that were compared.
        troubles: Findings about what could not be compared.
    """
    over = [error for error in errors if not error.passes]
    alone = [error for error in over if error.level in ALONE]
    others = list({(trouble.module, trouble.message): trouble for trouble in troubles}.values())
    findings = [_alone(module, group) for module, group in _grouped(alone).items()]
    findings += [trouble for trouble in others if trouble.module != ITERATION]
    findings.sort(key=lambda finding: (finding.outcome.value, -_number(finding.ratio), PHASES.index(finding.phase)))
    whole = persistent([error for error in errors if error.level == "end to end"])
    if whole:
        findings.append(_whole(whole, introduced=not findings))
    return (*findings, *(trouble for trouble in others if trouble.module == ITERATION))


def _grouped(errors: Sequence[TensorError]) -> dict[str, list[TensorError]]:
    groups: dict[str, list[TensorError]] = {}
    for error in errors:
        groups.setdefault(error.module, []).append(error)
    return groups


def persistent(errors: Sequence[TensorError]) -> list[TensorError]:
    """Return the errors of tensors that are over the limit in every batch: a flipped ReLU mask is not."""
    passing = {(error.module, error.tensor) for error in errors if error.passes}
    return [error for error in errors if (error.module, error.tensor) not in passing]


def _number(ratio: float) -> float:
    return math.inf if math.isnan(ratio) else ratio


def _alone(module: str, group: list[TensorError]) -> ModuleFinding:
    worst = max(group, key=badness)
    phase = min((error.phase for error in group), key=PHASES.index)
    mode = " in evaluation mode" if all(error.level == "evaluation" for error in group) else ""
    return ModuleFinding(
        module=module,
        kind=worst.kind,
        outcome=Outcome.FAIL,
        phase=phase,
        introduced=True,
        tensor=worst.tensor,
        ratio=worst.ratio,
        limit=worst.limit,
        count=len({error.tensor for error in group}),
        message=(
            f"{module} ({worst.kind}) is wrong on the reference's own inputs{mode}: {worst.tensor}"
            f"{f', {worst.types}' if worst.types else ''}"
        ),
    )


def _whole(group: list[TensorError], *, introduced: bool) -> ModuleFinding:
    phase = min((error.phase for error in group), key=PHASES.index)
    first = [error for error in group if error.phase == phase]
    worst = max(first, key=badness)
    count = len({(error.module, error.tensor) for error in group})
    where = "no module is wrong alone, so it lies between them" if introduced else "inherited from the modules above"
    return ModuleFinding(
        module=ITERATION,
        kind="whole iteration",
        outcome=Outcome.FAIL,
        phase=phase,
        introduced=introduced,
        tensor=f"{worst.module} {worst.tensor}",
        ratio=worst.ratio,
        limit=worst.limit,
        count=count,
        message=f"the whole iteration differs, first in phase {phase}: {where}",
    )
