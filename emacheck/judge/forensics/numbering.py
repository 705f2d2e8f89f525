"""Whether equal numbers mean the same iteration in both records."""

import numpy as np

from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.oddity import OddityKind
from emacheck.record import Record

_KINDS = {
    OddityKind.COUNTED: "its log names no iteration, so that they were counted",
    OddityKind.BY_EPOCH: "its log names epochs only",
}


def numbered_otherwise(comparison: Comparison) -> str:
    """Return why equal numbers do not mean the same iteration, in a sentence; empty where nothing speaks against it.

    Records whose log names no iteration are counted from 1, or numbered by their epochs. Beside a log that names the
    iterations such a number says nothing, unless both have the same ones.

    Args:
        comparison: What was measured.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> from emacheck.oddity import oddity
        >>> def run(iterations, *oddities):
        ...     loss = Curve(name="loss", iterations=iterations, values=iterations)
        ...     return Record(name="", format="", curves={"loss": loss}, oddities=oddities)
        >>> counted = run(range(1, 101), oddity(OddityKind.COUNTED, ""))
        >>> print(numbered_otherwise(compare(run(range(10, 1001, 10)), counted)).partition(", so")[0])
        the reference has records 10 to 1000; the candidate has records 1 to 100, for its log names no iteration
        >>> numbered_otherwise(compare(run(range(1, 101)), counted))
        ''
    """
    sides = {"reference": comparison.reference, "candidate": comparison.candidate}
    kinds = {side: _kind(record) for side, record in sides.items()}
    if kinds["reference"] is kinds["candidate"]:
        return ""
    for metric in comparison.metrics:
        its = {side: record.curves.get(metric, EMPTY).iterations for side, record in sides.items()}
        if all(map(len, its.values())) and not np.array_equal(its["reference"], its["candidate"]):
            parts = [
                f"the {side} has records {its[side][0]} to {its[side][-1]}" + (f", for {_KINDS[kind]}" if kind else "")
                for side, kind in kinds.items()
            ]
            return (
                f"{'; '.join(parts)}: which of them belong together is not known. Give two logs that name the iteration"
            )
    return ""


def _kind(record: Record) -> OddityKind | None:
    return next((each.kind for each in record.oddities if each.kind in _KINDS), None)
