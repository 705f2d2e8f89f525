"""What a rule is."""

from typing import Protocol

from emacheck.judge.comparison import Comparison
from emacheck.judge.verdict import Finding


class Rule(Protocol):
    """Anything with a name that turns a comparison into one finding per judged metric.

    Example:
        >>> class NoSpike:
        ...     name = "no_spike"
        ...     def check(self, comparison):
        ...         loss = comparison.curve("loss")
        ...         worst = loss.candidate.argmax()
        ...         size = float(loss.candidate[worst] / np.median(loss.candidate))
        ...         return (Finding(rule=self.name, outcome=Outcome.PASS if size <= 2 else Outcome.FAIL, observed=size,
        ...             limit=2, unit="times the median", iteration=int(loss.iterations[worst]), message="spike"),)
        >>> import numpy as np
        >>> from emacheck import Curve, Finding, Outcome, Record, compare
        >>> loss = Curve(name="loss", iterations=[1, 2, 3], values=[4.0, 12.0, 3.8])
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> print(*NoSpike().check(compare(record, record)))
        FAIL no_spike[loss] 3 (limit 2) at iteration 2: spike
    """

    @property
    def name(self) -> str:
        """What findings and limits call the rule; a plain or class attribute will do."""
        ...

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Return what the rule finds."""
        ...
