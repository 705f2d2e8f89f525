"""Which repeats of the reference can show what is benign."""

from emacheck.curve import Curve
from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.record import Record


def distinct_repeats(comparison: Comparison, metric: str) -> tuple[Record, ...]:
    """Return the repeats that have a metric and whose numbers are neither the reference's, the candidate's nor equal.

    A candidate that is one of the repeats would be held against itself.
    """
    records = (comparison.reference, comparison.candidate)
    seen = {_numbers(record.curves.get(metric, EMPTY)) for record in records}
    distinct = []
    for repeat in comparison.repeats:
        numbers = _numbers(repeat.curves.get(metric, EMPTY))
        if len(repeat.curves.get(metric, EMPTY)) and numbers not in seen:
            seen.add(numbers)
            distinct.append(repeat)
    return tuple(distinct)


def _numbers(curve: Curve) -> tuple[bytes, bytes]:
    return curve.iterations.tobytes(), curve.values.tobytes()
