"""Which repeats of the reference can show what is benign."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from emacheck.curve import Curve, Floats
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


def on_candidates_device(comparison: Comparison, repeat: Record) -> bool:
    """Tell whether a repeat says that it was trained where the candidate was, and the reference that it was not.

    Such a run is no repeat of the reference, and as wrong as the candidate if the device is.
    """
    records = (comparison.reference, comparison.candidate, repeat)
    said = [each for each in (record.provenance.get("device") for record in records) if isinstance(each, Mapping)]
    facts = [(each.get("type"), each.get("name")) for each in said]
    return len(facts) == len(records) and facts[2] == facts[1] != facts[0]


def two_groups(values: Floats) -> tuple[float, float, list[int]]:
    """Part some runs into the two groups that are farthest from each other, by the mean of |difference|.

    The nearest runs are joined until two groups are left (single linkage).

    Args:
        values: One metric of three or more runs at the same iterations, shape (runs, n), finite.

    Returns:
        The least distance of two runs of unlike groups, the largest one of two runs of one group, both in the unit of
        the values, and the runs of the group that the first one is not in.

    Example:
        >>> two_groups(np.array([[4.0, 3.0], [2.5, 2.0], [4.0, 3.25]]))
        (1.25, 0.125, [1])
    """
    with np.errstate(over="ignore"):
        pairs = [(float(np.mean(np.abs(values[i] - values[j]))), i, j) for i, j in combinations(range(len(values)), 2)]
    group = list(range(len(values)))
    for _, i, j in sorted(pairs):
        if len({*group}) == 2:
            break
        group = [group[i] if each == group[j] else each for each in group]
    between = min(distance for distance, i, j in pairs if group[i] != group[j])
    within = max(distance for distance, i, j in pairs if group[i] == group[j])
    return between, within, [run for run, each in enumerate(group) if each != group[0]]
