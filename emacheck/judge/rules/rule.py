"""What a rule is."""

from typing import ClassVar, Protocol

from emacheck.judge.comparison import Comparison
from emacheck.judge.verdict import Finding


class Rule(Protocol):
    """Anything with a name that turns a comparison into one finding per judged metric."""

    name: ClassVar[str]

    def check(self, comparison: Comparison) -> tuple[Finding, ...]:
        """Return what the rule finds."""
        ...
