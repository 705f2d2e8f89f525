"""The selftest: faults and benign variations through every rule, counted."""

import gc
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.faults.registry import BrokenFaultError, Fault, NotApplicableError
from emacheck.audit.findings.result import ITERATION, TensorError, find
from emacheck.audit.iteration.shared_code import SharedCode
from emacheck.audit.judging.candidate import judge
from emacheck.audit.judging.reference import Reference
from emacheck.audit.lockstep.variations import PLAIN, Variation
from emacheck.audit.selftest.confidence import clopper_pearson, upper_limit
from emacheck.audit.selftest.curve_rules import CURVE_RULES, CurveJudge
from emacheck.audit.selftest.curves import Training
from emacheck.judge.verdict import Outcome
from emacheck.strict_json import strict

FORMAT_VERSION = 1
AUDIT_RULES = ("audit_isolated", "audit_end_to_end", "audit")
# Seeds of the last bit in the trials that are reported; those below chose the limits or make the envelope.
FIRST_REPORTED_SEED, FIRST_REPEAT_SEED = 1000, 500
# Seeds of stochastic rounding are higher by this: those from 1000 were looked at when it became an accepted variation.
ROUNDING_SEEDS = 100_000
REPEATS = 8
LATER = "shows from iteration"
BROKEN = "BROKEN"
MOVES = ("gradient", "update", "buffer")
LARGE_MOVE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the rules said about one fault, or one benign variation.

    Attributes:
        name: The fault or the variation.
        kind: The fault's class, ``benign`` for a variation.
        severity: The fault's severity.
        unit: What the severity counts.
        imitates: Address of a public report.
        batch: Number of the batch.
        module: Where the fault sits, None if in no single module.
        named: The module that the audit blames most, None if none.
        phase: The phase that broke first, None if none did.
        isolated: Worst ratio of a tensor of a module alone, over its limit.
        end_to_end: Worst ratio of a tensor of a whole iteration, over its limit.
        detected_by: The rules that say FAIL.
        first_seen: For each of them how many iterations it needed to say so, 1 for the audit.
        moved: Largest relative error of a gradient, update or buffer that is beyond the accepted error.
        changed: Whether any tensor differs from what it is without the fault.
        raised: What the candidate raised where the reference runs, if anything.
        message: Why the trial could not be made.
        put_back: Functions that all sides share which the fault left replaced.
    """

    name: str
    kind: str
    severity: float = 0.0
    unit: str = ""
    imitates: str | None = None
    batch: int = 1
    module: str | None = None
    named: str | None = None
    phase: str | None = None
    isolated: float = 0.0
    end_to_end: float = 0.0
    detected_by: tuple[str, ...] = ()
    first_seen: dict[str, int] = field(default_factory=dict)
    moved: float = 0.0
    changed: bool = True
    raised: str = ""
    message: str = ""
    put_back: tuple[str, ...] = ()

    @property
    def function(self) -> str:
        """The fault's name without its severity."""
        return self.name.split("@")[0]

    @property
    def counts(self) -> bool:
        """Whether the fault could be applied and changed something."""
        return self.changed and not self.message

    def with_curves(self, training: Training | None, judge: CurveJudge) -> "Trial":
        """Return the trial with what the curve rules say of a short training, if there was one."""
        seen = {} if training is None else judge.first_seen(training)
        # What only later iterations show has an effect after all, also where nobody has declared it.
        shown = bool(seen) and not self.changed and (not self.message or self.message.startswith(LATER))
        by = (*seen, *(rule for rule in self.detected_by if rule not in seen))
        return replace(
            self,
            detected_by=by,
            first_seen={**seen, **self.first_seen},
            changed=self.changed or shown,
            message="" if shown else self.message,
        )


def repeats(threads: int = 2) -> list[Variation]:
    """Return the benign variations of the reference from which the envelope is made; none of them is a trial."""
    return benign_variations(REPEATS, first=FIRST_REPEAT_SEED, threads=threads)


def benign_variations(
    count: int, *, precision: str = "fp32", first: int = FIRST_REPORTED_SEED, threads: int = 2
) -> list[Variation]:
    """Return different ways to compute the same thing: threads, memory layout, oneDNN, rounding and the last bit.

    In bf16 and fp16 three of four round stochastically, which is right on average and changes every result: all else
    changes little there, as every side is given the same 16 bits.

    Args:
        count: How many.
        precision: The accepted precision; without oneDNN a CPU takes minutes for one iteration in bf16 or fp16.
        first: Seed of the first; trials with other seeds are independent.
        threads: The larger number of threads.

    Example:
        >>> print(benign_variations(1)[0])
        2 threads, last bit 1000
    """
    half = Precision(name=precision).half
    return [
        Variation(
            threads=1 if at % 2 else threads,
            channels_last=at // 2 % 2 == 1,
            onednn=at % 5 != 4 or half,
            last_bit=first + at,
            rounding=ROUNDING_SEEDS + first + at if half and at % 4 else 0,
        )
        for at in range(count)
    ]


def try_fault(reference: Reference, fault: Fault, plain: Mapping[tuple[Any, ...], float]) -> Trial:
    """Apply a fault to a twin and audit it.

    Args:
        reference: One that is kept for many candidates.
        fault: The fault.
        plain: What :func:`fingerprint` says of a candidate without a fault.
    """
    about: dict[str, Any] = {
        "kind": fault.kind,
        "severity": fault.severity,
        "unit": fault.unit,
        "imitates": fault.imitates,
    }
    precision = reference.plan.precision.name
    if precision not in fault.precisions:
        return Trial(
            name=fault.name, batch=reference.number, changed=False, message=f"no fault in {precision}", **about
        )
    candidate, code = reference.subject.twin(), SharedCode(reference.subject.model)
    try:
        module = fault(candidate)
        judged = judge(reference, candidate)
    except (NotApplicableError, BrokenFaultError) as error:
        why = "not applicable" if isinstance(error, NotApplicableError) else BROKEN
        return Trial(name=fault.name, batch=reference.number, changed=False, message=f"{why}: {error}", **about)
    finally:
        replaced = code.put_back()
    del candidate
    # Hooks and patches make cycles, and each candidate holds a whole network.
    gc.collect()
    errors = tuple(judged.errors)
    findings = find(errors, judged.troubles)
    changed = bool(judged.troubles) or fingerprint(errors) != plain
    return Trial(
        name=fault.name,
        batch=reference.number,
        module=module,
        changed=changed,
        message=f"{LATER} {fault.shows_at} on" if fault.shows_at > 1 and not changed else "",
        raised="; ".join(trouble.message for trouble in judged.troubles),
        put_back=replaced,
        **about,
        **_said(errors, findings),
    )


def try_variation(reference: Reference, variation: Variation) -> Trial:
    """Audit a candidate that computes the same thing in another way."""
    judged = judge(reference, reference.subject.twin(), variation=variation)
    errors = tuple(judged.errors)
    said = _said(errors, find(errors, judged.troubles))
    return Trial(name=str(variation), kind="benign", batch=reference.number, **said)


def fingerprint(errors: Sequence[TensorError]) -> dict[tuple[Any, ...], float]:
    """Return the error of every tensor, by which two candidates can be told apart."""
    # NaN is unlike itself.
    return {
        (error.level, error.module, error.tensor, error.depth): -1.0 if math.isnan(error.error) else error.error
        for error in errors
    }


def plain_fingerprint(reference: Reference) -> dict[tuple[Any, ...], float]:
    """Return the fingerprint of a candidate without a fault."""
    return fingerprint(judge(reference, reference.subject.twin(), variation=PLAIN).errors)


def _said(errors: Sequence[TensorError], findings: Sequence[Any]) -> dict[str, Any]:
    failing = [finding for finding in findings if finding.outcome is Outcome.FAIL]
    alone = [finding for finding in failing if finding.module != ITERATION]
    whole = [finding for finding in failing if finding.module == ITERATION]
    by = [("audit", failing), ("audit_isolated", alone), ("audit_end_to_end", whole)]
    moves = [e.error for e in errors if e.tensor.split(" ", 1)[0] in MOVES and math.isfinite(e.error) and e.ratio > 1]
    return {
        "named": failing[0].module if failing else None,
        "phase": failing[0].phase if failing else None,
        "isolated": max((e.ratio / e.limit for e in errors if e.level != "end to end"), default=0.0),
        "end_to_end": max((e.ratio / e.limit for e in errors if e.level == "end to end"), default=0.0),
        "detected_by": tuple(name for name, group in by if group),
        "first_seen": {name: 1 for name, group in by if group},
        "moved": max(moves, default=0.0),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Selftest:
    """All trials of a selftest.

    Attributes:
        faults: One for each fault.
        benign: One for each benign variation.
        precision: The accepted precision.
        device: Where the candidates ran.
        iterations: Length of the trainings that the curve rules judged, 0 if there were none.
    """

    faults: tuple[Trial, ...]
    benign: tuple[Trial, ...]
    precision: str
    device: str
    iterations: int = 0

    @property
    def outcome(self) -> Outcome:
        """FAIL for a false alarm or a missed fault that moves something by 1 %; INCONCLUSIVE for one without effect.

        A fault whose own code is wrong is INCONCLUSIVE as well.

        The audit decides alone; false alarms of the rules on curves are counted and not judged.
        """
        counted = [trial for trial in self.faults if trial.counts]
        missed = [trial for trial in counted if "audit" not in trial.detected_by and trial.moved >= LARGE_MOVE]
        if missed or any("audit" in trial.detected_by for trial in self.benign):
            return Outcome.FAIL
        # A severity too small for the accepted precision is no reason for doubt where another one has an effect.
        effective = {trial.function for trial in counted}
        idle = [t for t in self.faults if not t.changed and not t.message and t.function not in effective]
        broken = any(trial.message.startswith(BROKEN) for trial in self.faults)
        return Outcome.INCONCLUSIVE if idle or broken or not counted else Outcome.PASS

    @property
    def rule_names(self) -> tuple[str, ...]:
        """The rules that were asked."""
        return (*CURVE_RULES, *AUDIT_RULES) if self.iterations else AUDIT_RULES

    def rules(self) -> dict[str, dict[str, Any]]:
        """Return for every rule how many faults it found and how many benign trials it took for faults."""
        counted = [trial for trial in self.faults if trial.counts]
        found = {}
        for rule in self.rule_names:
            seen = [trial.first_seen.get(rule, 1) for trial in counted if rule in trial.detected_by]
            alarms = sum(rule in trial.detected_by for trial in self.benign)
            found[rule] = {
                "faults": len(counted),
                "detected": len(seen),
                "trials": len(self.benign),
                "false_alarms": alarms,
                "interval": list(clopper_pearson(alarms, len(self.benign))),
                "upper_limit": upper_limit(alarms, len(self.benign)),
                "median_first_seen": statistics.median(seen) if seen else None,
            }
        return found

    def naming(self) -> tuple[int, int]:
        """Return how many faults that sit in one module were found and that module blamed, and how many sit so."""
        placed = [trial for trial in self.faults if trial.counts and trial.module is not None]
        return sum(trial.named == trial.module for trial in placed), len(placed)

    def to_json(self) -> dict[str, Any]:
        """Return all of it in types that strict JSON has."""
        named, placed = self.naming()
        same: dict[str, Any] = strict(
            {
                "format_version": FORMAT_VERSION,
                "outcome": self.outcome.value,
                "precision": self.precision,
                "device": self.device,
                "iterations": self.iterations,
                "rules": self.rules(),
                "named": {"correctly": named, "faults": placed},
                "faults": list(_rows(self.faults)),
                "benign": list(_rows(self.benign)),
            }
        )
        return same


def _rows(trials: Sequence[Trial]) -> Iterator[dict[str, Any]]:
    for trial in trials:
        row = asdict(trial)
        row["class"] = row.pop("kind")
        yield row
