"""What the rules that judge curves say of a short training; no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from emacheck.curve import Curve
from emacheck.judge import decide
from emacheck.judge.comparison import Comparison
from emacheck.judge.rules.envelope import Envelope
from emacheck.judge.rules.first_iterations import FirstIterations
from emacheck.judge.rules.means import MeanRelativeError
from emacheck.judge.rules.modelzoo import ModelZoo
from emacheck.judge.rules.rule import Rule
from emacheck.judge.verdict import Outcome
from emacheck.record import Record

if TYPE_CHECKING:
    from emacheck.audit.selftest.curves import Training


def _fails(rule: Rule) -> Callable[[Comparison], bool]:
    return lambda comparison: any(finding.outcome is Outcome.FAIL for finding in rule.check(comparison))


# The users' rule, three rules alone, and the verdict of `emacheck run` without an audit.
CURVE_RULES: dict[str, Callable[[Comparison], bool]] = {
    "modelzoo": _fails(ModelZoo()),
    "mean_relative_error": _fails(MeanRelativeError()),
    "first_iterations": _fails(FirstIterations()),
    "envelope": _fails(Envelope()),
    "curves": lambda comparison: decide(comparison).outcome is Outcome.FAIL,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CurveJudge:
    """The reference's training and its repeats, against which others are judged.

    Attributes:
        reference: The plain training on the CPU.
        repeats: Benign variations of it, none of which is a trial.
        precision: The accepted precision.
    """

    reference: "Training"
    repeats: Sequence["Training"]
    precision: str = "fp32"
    _records: tuple[Record, ...] = field(init=False)

    def __post_init__(self) -> None:
        made = (self.reference, *self.repeats)
        records = tuple(self._record(f"repeat {at}" if at else "reference", one) for at, one in enumerate(made))
        object.__setattr__(self, "_records", records)

    def first_seen(self, candidate: "Training") -> dict[str, int]:
        """Return for every rule that says FAIL the length of the shortest training of which it says so.

        A training that raised is seen by everybody who watches it, at the iteration where it ended.

        Args:
            candidate: As long as the reference unless it raised.
        """
        length = len(self.reference.loss)
        if candidate.raised:
            return dict.fromkeys(CURVE_RULES, len(candidate.loss) + 1)
        record = self._record("candidate", candidate)
        compared = [self._comparison(record, iteration) for iteration in range(1, length + 1)]
        with np.errstate(all="ignore"):
            return {
                name: next(at for at, comparison in enumerate(compared, 1) if fails(comparison))
                for name, fails in CURVE_RULES.items()
                if length and fails(compared[-1])
            }

    def _comparison(self, candidate: Record, iteration: int) -> Comparison:
        reference, *repeats = (record.until(iteration) for record in self._records)
        return Comparison(
            reference=reference, candidate=candidate.until(iteration), paired=True, repeats=tuple(repeats)
        )

    def _record(self, name: str, training: "Training") -> Record:
        # Paired by construction: all start from one state and see the same batches.
        columns = {"loss": training.loss, "grad_norm": training.grad_norm, "lr": training.lr}
        return Record(
            name=name,
            format="selftest",
            curves={
                metric: Curve(name=metric, iterations=np.arange(1, len(values) + 1), values=np.array(values))
                for metric, values in columns.items()
                if values
            },
            provenance={"experiment": {"precision": self.precision}},
        )
