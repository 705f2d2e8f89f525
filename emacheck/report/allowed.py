"""What the applied rules allow the differences of one metric, where a picture can show it."""

from dataclasses import dataclass

import numpy as np

from emacheck.curve import Floats, Integers
from emacheck.judge.arithmetic import quotient
from emacheck.judge.noise.band import fit_band
from emacheck.judge.rules.envelope import Envelope
from emacheck.judge.rules.means import MeanRelativeError
from emacheck.judge.verdict import Outcome, Verdict
from emacheck.report.lines import DRAWABLE
from emacheck.report.scales import FLOOR

OF_THE_MEAN = f"of the mean ({MeanRelativeError.name})"
OF_THE_ENVELOPE = f"what the repeats allow ({Envelope.name})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Allowed:
    """The limits of the relative differences of one metric.

    Attributes:
        mean: Largest allowed mean of all |relative differences|; None where ``mean_relative_error`` was not applied.
        iterations: Iterations at which the envelope was held against the candidate, shape (n,); none without repeats.
        envelope: Largest |relative difference| that it allows there, shape (n,).
    """

    mean: float | None
    iterations: Integers
    envelope: Floats

    @property
    def places(self) -> Floats:
        """What of it has a place on an axis."""
        found = self.envelope if self.mean is None else np.append(self.envelope, self.mean)
        return found[(found >= FLOOR) & (found <= DRAWABLE)]


def allowed(verdict: Verdict, metric: str) -> Allowed:
    """Return what the rules of a verdict allow one metric: no line is drawn for a rule that was not applied.

    Example:
        >>> from emacheck import Curve, Record, compare, decide, make_rules
        >>> loss = Curve(name="loss", iterations=[1, 2], values=[4.0, 3.0])
        >>> one = Record(name="cpu", format="example", curves={"loss": loss})
        >>> for names in (["mean_relative_error"], ["bias"]):
        ...     print(allowed(decide(compare(one, one), make_rules(names)), "loss").mean)
        0.05
        None
    """
    found = {finding.rule: finding for finding in verdict.findings if finding.metric == metric}
    mean, judged = found.get(MeanRelativeError.name), found.get(Envelope.name)
    iterations, envelope = np.array([], dtype=np.int64), np.array([], dtype=np.float64)
    if judged is not None and judged.outcome is not Outcome.INCONCLUSIVE:
        band = fit_band(verdict.comparison, metric, Envelope().alpha)  # of which the scale alone is used
        if band is not None:
            iterations = band.iterations
            envelope = quotient(judged.limit * band.scale, np.abs(band.reference))
    return Allowed(mean=None if mean is None else mean.limit, iterations=iterations, envelope=envelope)
