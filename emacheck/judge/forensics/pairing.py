"""Are two runs paired: do they start from the same weights and see the same batches? It decides which rules suit."""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np

from emacheck.counted import the_first
from emacheck.curve import Floats
from emacheck.judge.comparison import EMPTY, Comparison, PairedCurve
from emacheck.judge.forensics.headers import different_data, different_experiment
from emacheck.judge.forensics.standstill import resolution
from emacheck.judge.noise.growth import MARGIN, printed, size
from emacheck.judge.noise.rounding import SATURATION, known_precision, rounding
from emacheck.judge.noise.scatter import correlated

# Iterations in which paired runs still fluctuate together, whatever the device does wrong.
TOGETHER = 20
SHOWN = 3


class Pairing(str, Enum):
    """Whether two runs start from the same weights and see the same batches."""

    PAIRED = "paired"
    UNPAIRED = "unpaired"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Whether two runs are paired, and how that is known.

    Attributes:
        pairing: What was found.
        why: What it rests on, as a clause.
    """

    pairing: Pairing
    why: str

    def __str__(self) -> str:
        said = {Pairing.PAIRED: "paired", Pairing.UNPAIRED: "not paired", Pairing.UNKNOWN: "perhaps paired"}
        return f"{said[self.pairing]}: {self.why}"


_PROVEN = {
    True: Evidence(pairing=Pairing.PAIRED, why="same initial state, same batches"),
    False: Evidence(pairing=Pairing.UNPAIRED, why="different initial states or batches"),
}
_DRAWN_ON_DEVICE = Evidence(
    pairing=Pairing.UNKNOWN,
    why="same initial state, same batches, but a run drew on its device, and each device draws other numbers",
)
_BY_CURVES = {
    True: Evidence(pairing=Pairing.PAIRED, why="the first iterations agree as far as rounding allows"),
    False: Evidence(
        pairing=Pairing.UNPAIRED, why="the curves differ from the first iteration on and do not fluctuate together"
    ),
    None: Evidence(pairing=Pairing.UNKNOWN, why="no fingerprints, and the first iterations do not tell"),
}


def pairing_of(comparison: Comparison) -> Evidence:
    """Decide whether two runs are paired: by fingerprints, by the user's word, by headers and the first iterations.

    Args:
        comparison: What was measured.

    Returns:
        The pairing, and what it rests on.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> def run(*values, **header):
        ...     loss = Curve(name="loss", iterations=[1, 2, 3], values=values)
        ...     return Record(name="", format="", curves={"loss": loss}, header=header)
        >>> for candidate in (run(4.1, 4.0, 3.9), run(4.2, 4.0, 3.9), run(4.2, 4.0, 3.9, seed="2")):
        ...     found = pairing_of(compare(run(4.1, 4.0, 3.9, seed="1"), candidate))
        ...     print(found.pairing, "-", found.why)
        paired - the first iterations agree as far as rounding allows
        unknown - no fingerprints, and the first iterations do not tell
        unpaired - seed 1 against 2
    """
    drawn = drawn_on_device(comparison)
    if comparison.paired is not None and not drawn:
        return _PROVEN[comparison.paired]
    if comparison.stated is not None:
        pairing = Pairing.PAIRED if comparison.stated else Pairing.UNPAIRED
        return Evidence(pairing=pairing, why="as stated; no fingerprints prove it")
    by_curves = paired_by_curves(comparison)
    if drawn:
        return _PROVEN[True] if by_curves else _DRAWN_ON_DEVICE
    records = (comparison.reference, comparison.candidate)
    different = different_experiment(*records)
    # Three equal iterations overrule how many processes there are: one may see the batch of two.
    if different and (by_curves is not True or different_data(*records)):
        return Evidence(pairing=Pairing.UNPAIRED, why=the_first(different, SHOWN))
    return _BY_CURVES[by_curves]


def drawn_on_device(comparison: Comparison) -> bool:
    """Tell whether fingerprints prove two runs to be paired but for what one drew on its device, as its record says.

    Example:
        >>> from emacheck import Record
        >>> one = Record(name="", format="", curves={}, provenance={"draws_on_device": True})
        >>> drawn_on_device(Comparison(reference=one, candidate=one, paired=True))
        True
    """
    drew = (record.provenance.get("draws_on_device") is True for _, record in comparison.sides)
    return bool(comparison.paired) and any(drew)


# Twenty places ask it of one comparison, which nothing can change, and it looks at every judged metric.
@lru_cache(maxsize=2)
def paired_by_curves(comparison: Comparison) -> bool | None:
    """Decide from the first iterations whether two records start from the same weights and see the same data.

    They do where the first three iterations agree in every judged metric within MARGIN times rounding and printing,
    and both curves move there by more than that: a head that starts at zero has the same loss whatever it sees.
    They do not where iteration 1 differs and the curves do not fluctuate together either: the correlation of their
    changes from one iteration to the next, over the first 20 or fewer, at least 10, is not above 0 with 99 %
    confidence. A device that is wrong from the first iteration on still sees the same data and fluctuates together, so
    such a pair stays undecided.

    Args:
        comparison: What was measured.

    Returns:
        True, False, or None where that is unknown: means over a window, no early iterations, or too few.

    Source: confidence by R. A. Fisher's transformation of a correlation, Metron 1 (1921), 3: atanh(r) has a standard
    error of 1 / sqrt(n - 3).

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> loss = Curve(name="loss", iterations=[1, 2, 3], values=[4.1, 4.0, 3.8])
        >>> one = Record(name="", format="", curves={"loss": loss})
        >>> paired_by_curves(compare(one, one))
        True
    """
    agree = []
    for metric in comparison.metrics:
        curves = [record.curves.get(metric, EMPTY) for record in (comparison.reference, comparison.candidate)]
        paired = comparison.curve(metric)
        early = rounding(metric, paired.iterations, known_precision(comparison))
        first = np.flatnonzero(np.isfinite(early))
        if not first.size or first[0] != 0 or any(curve.window != 1 for curve in curves):
            return None
        within = size(paired)[first] <= MARGIN * early[first] + printed(comparison, paired)[first]
        agree.append(bool(np.all(within)) and _move(comparison, paired, MARGIN * early[first]))
        if not within[0] and _fluctuate_together(paired) is False:
            return False
    telling = all(printed(comparison, comparison.curve(metric))[0] <= SATURATION for metric in comparison.metrics)
    return True if agree and all(agree) and telling else None


def _move(comparison: Comparison, paired: PairedCurve, noise: Floats) -> bool:
    """Tell whether both curves leave their first value by more than printed digits and noise, relative to it, hide."""
    sides = ((comparison.reference, paired.reference), (comparison.candidate, paired.candidate))
    for record, values in sides:
        early = values[: len(noise)]
        with np.errstate(all="ignore"):
            unit = resolution(early, record.curves[paired.metric].quantum) * (1 + 1e-6)
            moves = np.any(np.abs(early - early[0]) > np.maximum(noise * np.abs(early[0]), unit))
        if not moves:
            return False
    return True


def _fluctuate_together(paired: PairedCurve) -> bool | None:
    """Return whether both curves' changes correlate, None where too few iterations follow each other to tell."""
    consecutive = np.flatnonzero(np.diff(paired.iterations[:TOGETHER]) == 1)
    with np.errstate(all="ignore"):
        changes = np.array([np.diff(values[:TOGETHER])[consecutive] for values in (paired.reference, paired.candidate)])
    return correlated(changes) if changes.shape[1] >= 10 else None
