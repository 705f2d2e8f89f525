"""What a reader of a curve should know about the log it comes from, one sentence each, with the line."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from emacheck.counted import and_so_on, counted
from emacheck.curve import Curve, Integers
from emacheck.logs.naming import is_loss
from emacheck.logs.series import Chosen, Course, NotFinite
from emacheck.logs.unread import Unread
from emacheck.oddity import Oddity, OddityKind, oddity

Lines = npt.NDArray[np.uintc]
_NAMED = 5
_LINE = re.compile(r"line \d+")
SHORT = 0.5
"""A last run with a smaller share of the records of a run before it is hardly the one that is meant."""


def of_course(found: Course, iterations: Integers, lines: Lines) -> list[Oddity]:
    """Remark a second run in the log, and the places where the iteration goes back."""
    remarks = []
    if found.runs > 1:
        which = "two runs" if found.runs == 2 else f"{found.runs} runs"
        line, length = int(lines[found.start]), len(iterations) - found.start
        message = (
            f"line {line}: {which} in one file, for the iteration starts again at {iterations[found.start]}: the last "
            f"one, from line {line} on, is read"
        )
        kind = OddityKind.SEVERAL_RUNS
        if length < SHORT * found.longest:
            kind = OddityKind.SHORT_LAST_RUN
            message += (
                f", but it holds {counted(length, 'record')} and one before it {found.longest}: which of them is "
                "meant? Cut the file to one run"
            )
        remarks.append(oddity(kind, message, line=line))
    if found.backs:
        at = found.backs[0]
        more = f" (the first of {len(found.backs)} places)" if len(found.backs) > 1 else ""
        message = (
            f"line {lines[at]}: the iteration goes back from {iterations[at - 1]} to {iterations[at]}, as after a "
            f"resume{more}"
        )
        remarks.append(oddity(OddityKind.RESUMED, message, line=int(lines[at])))
    return remarks


def of_repeats(repeated: Integers, differing: Integers) -> list[Oddity]:
    """Remark iterations that were recorded more than once, and those of them whose values differ."""
    message = (
        f"iterations that are recorded more than once, of which the later record is used: {len(repeated)}, "
        f"the first is {repeated[0]}"
    )
    if not len(differing):
        return [oddity(OddityKind.REPEATED, f"{message}; all values are the same each time")]
    return [oddity(OddityKind.REPLACED, f"{message}; with other values than before: {len(differing)}")]


def of_mixture(losses: Integers, iterations: Integers) -> list[Oddity]:
    """Remark records of several writers that are mixed: a resume runs on, here most iterations have several losses.

    Args:
        losses: The iterations that are recorded with several losses.
        iterations: Those of all records, in the order of the log.
    """
    number = len(np.unique(iterations))
    standing = int(np.sum(iterations[1:] <= iterations[:-1]))
    if 2 * len(losses) <= number or 2 * standing <= number:
        return []
    message = (
        f"{len(losses)} of {number} iterations are recorded with several losses, as where several processes or the "
        "parts of a batch write one log and nothing says which of them does: give the log of one of them, or one with "
        "a column or key rank"
    )
    return [oddity(OddityKind.MIXED, message)]


def of_not_finite(found: Sequence[NotFinite], iterations: Integers, lines: Lines) -> list[Oddity]:
    """Remark losses that were NaN or infinite before later records took their place.

    Args:
        found: Where they are.
        iterations: The iteration of each record of the log.
        lines: The line of each record of the log.
    """
    remarks = []
    for each in found:
        first = each.rows[0]
        message = (
            f"line {lines[first]}: {each.metric} is NaN or infinite in records that later ones replaced: "
            f"{len(each.rows)}, the first at iteration {iterations[first]}. Find out why: a run in which that happens "
            "proves nothing, however it went on"
        )
        remarks.append(oddity(OddityKind.REPLACED_NOT_FINITE, message, line=int(lines[first])))
    return remarks


def of_each_rank(remarks: Mapping[int, Sequence[Oddity]]) -> list[Oddity]:
    """Join what is remarked of each rank: once what holds for all of them, the rest with the ranks that it is about.

    Example:
        >>> resumed = [oddity(OddityKind.RESUMED, "line 9: the iteration goes back from 50 to 41, as after a resume")]
        >>> [str(each) for each in of_each_rank({0: resumed, 1: [], 2: resumed})]
        ['ranks 0, 2: line 9: the iteration goes back from 50 to 41, as after a resume']
    """
    alike: dict[tuple[OddityKind, str], tuple[Oddity, dict[int, None]]] = {}
    for rank, found in remarks.items():
        for each in found:
            # Ranks that go the same way do so on lines of their own.
            alike.setdefault((each.kind, _LINE.sub("", each.message)), (each, {}))[1][rank] = None
    joined, named = list[Oddity](), dict[OddityKind, int]()
    for each, ranks in alike.values():
        if len(ranks) == len(remarks):
            joined.append(each)
            continue
        named[each.kind] = named.get(each.kind, 0) + 1
        if named[each.kind] <= _NAMED:
            message = f"rank{'s' if len(ranks) > 1 else ''} {and_so_on(list(ranks), _NAMED)}: {each.message}"
            joined.append(replace(each, message=message))
    for kind, count in named.items():
        if count > _NAMED:
            joined.append(oddity(kind, f"{count - _NAMED} further remarks of this kind, about single ranks"))
    return joined


def of_gaps(chosen: Chosen, lines: Lines) -> list[Oddity]:
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
    line = int(lines[chosen.rows[at + 1]])
    message = (
        f"line {line}: records are missing between the iterations {iterations[at]} and "
        f"{iterations[at + 1]}{f' (the first of {len(wide)} gaps)' if len(wide) > 1 else ''}"
    )
    return [oddity(OddityKind.GAP, message, line=line)]


def of_values(curves: Mapping[str, Curve], chosen: Chosen, lines: Lines, unread: Unread | None = None) -> list[Oddity]:
    """Remark values that are not finite, and records without the loss, with what stands in its place."""
    remarks = []
    for name, curve in curves.items():
        wrong = ~np.isfinite(curve.values)
        if np.any(wrong):
            iteration = int(curve.iterations[np.argmax(wrong)])
            message = f"{name} is {_counts(curve)}, the first at iteration {iteration}"
            remarks.append(_at(OddityKind.NOT_FINITE, message, iteration, chosen, lines))
    if len(remarks) > _NAMED:
        message = (
            f"{counted(len(remarks) - _NAMED, 'further metric is', 'further metrics are')} NaN or infinite somewhere"
        )
        remarks = [*remarks[:_NAMED], oddity(OddityKind.NOT_FINITE, message)]
    loss = curves.get("loss")
    if loss is None:
        verb = "is" if len(curves) == 1 else "are"
        message = f"no metric is called loss; there {verb} {and_so_on(list(curves), _NAMED)}"
        return [*remarks, oddity(OddityKind.NO_LOSS, message)]
    if len(loss) < len(chosen.iterations):
        missing = np.setdiff1d(chosen.iterations, loss.iterations)
        instead = f" (in its place: {unread.found})" if unread is not None else ""
        message = f"records without a loss: {len(missing)}{instead}, the first is iteration {missing[0]}"
        remarks.append(_at(OddityKind.MISSING_LOSS, message, int(missing[0]), chosen, lines))
    return remarks


def of_unread(unread: Mapping[str, Unread], measured: Set[str]) -> list[Oddity]:
    """Remark what stands in the place of numbers, for metrics that are measured elsewhere or speak of a loss."""
    found = [
        oddity(OddityKind.UNREADABLE, f"values of {name} that are no number: {each}", line=each.line)
        for name, each in unread.items()
        if name in measured or is_loss(name)
    ]
    more = oddity(OddityKind.UNREADABLE, f"{len(found) - _NAMED} further metrics have values that are no number")
    return found if len(found) <= _NAMED else [*found[:_NAMED], more]


def of_interval(iterations: Sequence[int] | Integers) -> list[Oddity]:
    """Remark that not every iteration is recorded."""
    interval = logging_interval(iterations)
    if interval < 2 or len(iterations) < 2:
        return []
    message = f"recorded every {interval} iterations; whether the values are means of those between is not in the file"
    return [oddity(OddityKind.INTERVAL, message)]


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


def _at(kind: OddityKind, message: str, iteration: int, chosen: Chosen, lines: Lines) -> Oddity:
    """Return a remark with the line of the record of an iteration, if there is one."""
    at = int(np.searchsorted(chosen.iterations, iteration))
    if at == len(chosen.iterations) or chosen.iterations[at] != iteration:
        return oddity(kind, message)
    line = int(lines[chosen.rows[at]])
    return oddity(kind, f"line {line}: {message}", line=line)


def _counts(curve: Curve) -> str:
    nan = int(np.isnan(curve.values).sum())
    infinite = int(np.isinf(curve.values).sum())
    parts = [f"NaN {nan} times" if nan > 1 else "NaN once"] * bool(nan)
    parts += [f"infinite {infinite} times" if infinite > 1 else "infinite once"] * bool(infinite)
    return " and ".join(parts)
