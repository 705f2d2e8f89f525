"""What a reader of a curve should know about the log it comes from, one sentence each, with the line."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from emacheck.curve import Curve, Integers
from emacheck.logs.series import Chosen, Course

Lines = npt.NDArray[np.uintc]
_NAMED = 5


def of_course(found: Course, iterations: Integers, lines: Lines) -> list[str]:
    """Remark a second run in the log, and the places where the iteration goes back."""
    remarks = []
    if found.runs > 1:
        which = "two runs" if found.runs == 2 else f"{found.runs} runs"
        line = lines[found.start]
        remarks.append(
            f"line {line}: {which} in one file, for the iteration starts again at {iterations[found.start]}: the last "
            f"one, from line {line} on, is read"
        )
    if found.backs:
        at = found.backs[0]
        more = f" (the first of {len(found.backs)} places)" if len(found.backs) > 1 else ""
        remarks.append(
            f"line {lines[at]}: the iteration goes back from {iterations[at - 1]} to {iterations[at]}, as after a "
            f"resume{more}"
        )
    return remarks


def of_repeats(repeated: Integers) -> list[str]:
    """Remark iterations that were recorded more than once."""
    if not len(repeated):
        return []
    return [
        f"iterations that are recorded more than once, of which the later record is used: {len(repeated)}, "
        f"the first is {repeated[0]}"
    ]


def of_gaps(chosen: Chosen, lines: Lines) -> list[str]:
    """Remark places where at least one record is missing, given the usual distance between records."""
    iterations = chosen.iterations
    if len(iterations) < 3:
        return []
    distances = np.diff(iterations)
    usual = most_common(distances)
    wide = np.flatnonzero(distances >= 2 * usual)
    if not len(wide) or 2 * len(wide) > len(distances):
        return []
    at = int(wide[0])
    return [
        f"line {lines[chosen.rows[at + 1]]}: records are missing between the iterations {iterations[at]} and "
        f"{iterations[at + 1]}{f' (the first of {len(wide)} gaps)' if len(wide) > 1 else ''}"
    ]


def of_values(curves: Mapping[str, Curve], chosen: Chosen, lines: Lines) -> list[str]:
    """Remark values that are not finite, and records without the loss."""
    remarks = []
    for name, curve in curves.items():
        wrong = ~np.isfinite(curve.values)
        if np.any(wrong):
            iteration = curve.iterations[np.argmax(wrong)]
            remarks.append(
                f"{_line(iteration, chosen, lines)}{name} is {_counts(curve)}, the first at iteration {iteration}"
            )
    if len(remarks) > _NAMED:
        remarks = [*remarks[:_NAMED], f"{len(remarks) - _NAMED} further metrics are NaN or infinite somewhere"]
    loss = curves.get("loss")
    if loss is None:
        names = ", ".join(list(curves)[:_NAMED])
        return [*remarks, f"no metric is called loss; there are {names}{', ...' if len(curves) > _NAMED else ''}"]
    if len(loss) < len(chosen.iterations):
        missing = np.setdiff1d(chosen.iterations, loss.iterations)
        remarks.append(
            f"{_line(missing[0], chosen, lines)}records without a loss: {len(missing)}, the first is iteration "
            f"{missing[0]}"
        )
    return remarks


def of_interval(iterations: Sequence[int] | Integers) -> list[str]:
    """Remark that not every iteration is recorded."""
    interval = logging_interval(iterations)
    if interval < 2:
        return []
    return [f"recorded every {interval} iterations; whether the values are means of those between is not in the file"]


def logging_interval(iterations: Sequence[int] | Integers) -> int:
    """Return the distance between records that is found most often; of a single record, its iteration number.

    Example:
        >>> logging_interval([50, 100, 117, 167, 217])
        50
    """
    ordered = np.asarray(iterations, np.int64)
    if np.any(ordered[1:] <= ordered[:-1]):
        ordered = np.unique(ordered)
    return most_common(np.diff(ordered)) if len(ordered) > 1 else max(int(ordered[0]), 1)


def most_common(distances: Integers) -> int:
    """Return the distance that is found most often, the first of several."""
    if np.all(distances == distances[0]):
        return int(distances[0])
    values, first, counts = np.unique(distances, return_index=True, return_counts=True)
    best = np.flatnonzero(counts == counts.max())
    return int(values[best[np.argmin(first[best])]])


def _line(iteration: int, chosen: Chosen, lines: Lines) -> str:
    at = int(np.searchsorted(chosen.iterations, iteration))
    found = at < len(chosen.iterations) and chosen.iterations[at] == iteration
    return f"line {lines[chosen.rows[at]]}: " if found else ""


def _counts(curve: Curve) -> str:
    nan = int(np.isnan(curve.values).sum())
    infinite = int(np.isinf(curve.values).sum())
    parts = [f"NaN {nan} times" if nan > 1 else "NaN once"] * bool(nan)
    parts += [f"infinite {infinite} times" if infinite > 1 else "infinite once"] * bool(infinite)
    return " and ".join(parts)
