"""Whether equal numbers mean the same iteration in both records."""

from dataclasses import replace

import numpy as np

from emacheck.curve import Curve
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
    sides = dict(comparison.sides)
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


def one_counts_from_zero(reference: Curve, candidate: Curve) -> str:
    """Say that one record counts from 0 what the other one counts from 1, if it lacks nothing beside that.

    Args:
        reference: A metric of the reference.
        candidate: The same of the candidate.

    Example:
        >>> def loss(*iterations):
        ...     return Curve(name="loss", iterations=iterations, values=iterations)
        >>> one_counts_from_zero(loss(0, 1, 2), loss(1, 2, 3)).partition(",")[0]
        'the reference counts its iterations from 0'
        >>> one_counts_from_zero(loss(0, 1, 2), loss(1, 2))
        ''
    """
    if not len(reference) or not len(candidate):
        return ""
    first, other = int(reference.iterations[0]), int(candidate.iterations[0])
    alike = np.array_equal(reference.iterations - first, candidate.iterations - other)
    if not alike or {first, other} != {0, 1}:
        return ""
    return (
        f"the reference counts its iterations from {first}, the candidate from {other}, and they are paired by number: "
        "if both begin with the same iteration, say --from-one"
    )


def both_from_one(comparison: Comparison) -> Comparison | None:
    """Return a comparison in which both count from 1, where one record counts a judged metric from 0; None elsewhere.

    Args:
        comparison: What was measured.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> def run(*iterations):
        ...     loss = Curve(name="loss", iterations=iterations, values=[4.0, 3.5])
        ...     return Record(name="", format="", curves={"loss": loss})
        >>> both_from_one(compare(run(0, 1), run(1, 2))).curve("loss").difference.tolist()
        [0.0, 0.0]
    """
    sides = [record for _, record in comparison.sides]
    pairs = ([record.curves.get(metric, EMPTY) for record in sides] for metric in comparison.metrics)
    if not any(one_counts_from_zero(*pair) for pair in pairs):
        return None
    reference, candidate, *repeats = (record.from_one() for record in (*sides, *comparison.repeats))
    return replace(comparison, reference=reference, candidate=candidate, repeats=tuple(repeats), rank_0=None)


def _kind(record: Record) -> OddityKind | None:
    return next((each.kind for each in record.oddities if each.kind in _KINDS), None)
