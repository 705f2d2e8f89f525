"""Whether equal numbers mean the same iteration in both records."""

import numpy as np

from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.oddity import OddityKind
from emacheck.record import Record


def numbered_otherwise(comparison: Comparison) -> str:
    """Return why equal numbers do not mean the same iteration, in a sentence; empty where nothing speaks against it.

    Records whose log names no iteration are counted from 1. The number is that of the iteration only if every iteration
    is recorded; so nothing is known if the other log names iterations, and they are not the same numbers.

    Args:
        comparison: What was measured.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> from emacheck.oddity import oddity
        >>> def run(iterations, *oddities):
        ...     loss = Curve(name="loss", iterations=iterations, values=iterations)
        ...     return Record(name="", format="", curves={"loss": loss}, oddities=oddities)
        >>> counted = run(range(1, 101), oddity(OddityKind.COUNTED, ""))
        >>> print(numbered_otherwise(compare(run(range(10, 1001, 10)), counted)).partition(":")[0])
        the candidate's log names no iteration, so that its records were counted from 1, the reference has 10 to 1000
        >>> numbered_otherwise(compare(run(range(1, 101)), counted))
        ''
    """
    sides = {"reference": comparison.reference, "candidate": comparison.candidate}
    counted = [side for side, record in sides.items() if _is_counted(record)]
    if len(counted) != 1:
        return ""
    (side,) = counted
    other = "candidate" if side == "reference" else "reference"
    for metric in comparison.metrics:
        ours, theirs = (sides[each].curves.get(metric, EMPTY).iterations for each in (side, other))
        if len(ours) and len(theirs) and not np.array_equal(ours, theirs):
            return (
                f"the {side}'s log names no iteration, so that its records were counted from 1, the {other} has "
                f"{theirs[0]} to {theirs[-1]}: which records belong together is not known. Give two logs that name "
                "the iteration"
            )
    return ""


def _is_counted(record: Record) -> bool:
    return any(each.kind is OddityKind.COUNTED for each in record.oddities)
