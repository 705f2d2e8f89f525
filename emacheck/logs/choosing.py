"""Which records of a log count: those of the last run, and of those of one iteration the later one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emacheck.curve import Integers
from emacheck.logs import oddities as remark
from emacheck.logs.columns import Columns
from emacheck.logs.epochs import NO_ITERATION
from emacheck.logs.series import Chosen, course, later_records, not_finite, repeats_that_differ, without_blanks
from emacheck.oddity import Oddity


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The training records that count.

    Attributes:
        chosen: Those of each rank.
        start: The line on which the last run of the first rank that has several starts, 0 if none has.
        blank: The iterations of the records without a metric among them.
        remarks: What to say about those that do not count, and about the order of all.
    """

    chosen: list[Chosen]
    start: int
    blank: Integers
    remarks: list[Oddity]


def choose(columns: Columns, iterations: Integers, ranks: Sequence[int], *, others: bool) -> Choice:
    """Choose the training records that count.

    Args:
        columns: All records.
        iterations: The iteration of each, counted on through the epochs; NO_ITERATION where it has none.
        ranks: The ranks to take.
        others: Whether not all records are of a single rank.
    """
    parted = others or bool(iterations.min() == NO_ITERATION)
    lines, of_rank, without = columns.lines(), columns.ranks(), columns.blank()
    chosen, start, blank, said = [], 0, np.zeros(0, np.int64), dict[int, list[Oddity]]()
    for rank in ranks:
        rows, of_rows = np.arange(len(iterations)), iterations
        if parted:
            rows = np.flatnonzero((of_rank == rank) & (iterations != NO_ITERATION))
            of_rows = iterations[rows]
        found = course(of_rows)
        remarks = remark.of_course(found, of_rows, lines[rows])
        start = start or (int(lines[rows[found.start]]) if found.runs > 1 else 0)
        last, of_last = rows[found.start :], of_rows[found.start :]
        if np.any(without):
            filled = without_blanks(without[last], of_last)
            last, of_last = last[filled], of_last[filled]
        kept, repeated = later_records(last, of_last)
        blank = np.union1d(blank, kept.iterations[without[kept.rows]])
        if len(repeated):
            differing, losses = repeats_that_differ(columns, last, of_last)
            remarks += remark.of_repeats(repeated, differing) + remark.of_mixture(losses, of_last)
        broken = not_finite(columns, rows, kept.rows)
        said[rank] = remarks + remark.of_not_finite(broken, iterations, lines)
        chosen.append(kept)
    return Choice(chosen=chosen, start=start, blank=blank, remarks=remark.of_each_rank(said))
