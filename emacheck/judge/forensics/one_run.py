"""Whether two records are the log of one run: no two runs measure the same times."""

import numpy as np

from emacheck.judge.comparison import Comparison
from emacheck.judge.forensics.metric_names import is_time

# So many common iterations and different times show that it is no accident of printed digits.
ENOUGH, DISTINCT = 10, 5


def of_one_run(comparison: Comparison) -> str:
    """Return why both records can only be the log of one run, in a sentence; empty where nothing says so.

    Args:
        comparison: What was measured.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> def run(times):
        ...     curve = Curve(name="time", iterations=range(12), values=times)
        ...     return Record(name="", format="", curves={"time": curve})
        >>> of_one_run(compare(run(range(12)), run(range(12)), metrics=["time"])).partition(",")[0]
        'every measured time (time) is the same in both at all 12 common iterations'
        >>> of_one_run(compare(run(range(12)), run(range(1, 13)), metrics=["time"]))
        ''
    """
    reference, candidate = comparison.reference.curves, comparison.candidate.curves
    moving = []
    for name in reference:
        if name not in candidate or not is_time(name):
            continue
        each = comparison.curve(name)
        if not np.array_equal(each.reference, each.candidate):
            return ""
        if len(each.iterations) >= ENOUGH and len(np.unique(each.reference)) >= DISTINCT:
            moving.append(each)
    if not moving:
        return ""
    count = min(len(each.iterations) for each in moving)
    return (
        f"every measured time ({', '.join(each.metric for each in moving)}) is the same in both at all {count} common "
        "iterations, as in no two runs: both are the log of one run, perhaps changed, and say nothing about a device"
    )
