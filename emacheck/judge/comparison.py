"""A comparison: the measured differences of two records, without an opinion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from emacheck.curve import Curve, Floats, Integers
from emacheck.errors import UsageError
from emacheck.judge.arithmetic import quotient
from emacheck.oddity import OddityKind
from emacheck.printable import printable
from emacheck.record import Record

EMPTY = Curve(name="", iterations=(), values=())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairedCurve:
    """One metric of both records at the iterations they have in common.

    Attributes:
        metric: The metric's name.
        iterations: The common iterations, shape (n,).
        reference: The reference's values there, shape (n,).
        candidate: The candidate's values there, shape (n,).
        only_reference: Iterations that the candidate lacks, shape (m,).
        only_candidate: Iterations that the reference lacks, shape (k,).
    """

    metric: str
    iterations: Integers
    reference: Floats
    candidate: Floats
    only_reference: Integers
    only_candidate: Integers

    @property
    def difference(self) -> Floats:
        """Difference candidate - reference, in the metric's unit, shape (n,)."""
        with np.errstate(invalid="ignore", over="ignore"):
            return self.candidate - self.reference

    @property
    def relative_difference(self) -> Floats:
        """Quotient (candidate - reference) / reference, shape (n,); 0 where both are 0.

        A difference from a reference of zero is infinite, so it can pass no limit.
        """
        return quotient(self.difference, self.reference)

    def first_unequal(self) -> int | None:
        """Return the first iteration at which the values differ at all, or None."""
        return self._first(~(self.difference == 0))

    def first_above(self, limit: float) -> int | None:
        """Return the first iteration whose |relative difference| is not within ``limit``, or None."""
        return self._first(~(np.abs(self.relative_difference) <= limit))

    def _first(self, flags: "np.ndarray[tuple[int], np.dtype[np.bool_]] | Floats") -> int | None:
        at = np.flatnonzero(flags)
        return int(self.iterations[at[0]]) if at.size else None


def precision_of(record: Record) -> str:
    """Return the precision that a record's provenance names, empty if it names none."""
    experiment = record.provenance.get("experiment")
    return str(experiment.get("precision", "")) if isinstance(experiment, Mapping) else ""


def pair(metric: str, reference: Curve, candidate: Curve) -> PairedCurve:
    """Pair two curves by iteration number, never by position.

    Args:
        metric: The metric's name.
        reference: The reference's curve.
        candidate: The candidate's curve.

    Returns:
        The values at the common iterations, and the iterations that only one of the two has.

    Example:
        >>> r = Curve(name="loss", iterations=[1, 2, 3], values=[4.0, 3.0, 2.0])
        >>> c = Curve(name="loss", iterations=[2, 3, 4], values=[3.0, 2.5, 2.0])
        >>> p = pair("loss", r, c)
        >>> p.iterations.tolist(), p.difference.tolist(), p.only_reference.tolist()
        ([2, 3], [0.0, 0.5], [1])
    """
    common, at_reference, at_candidate = np.intersect1d(
        reference.iterations, candidate.iterations, assume_unique=True, return_indices=True
    )
    return PairedCurve(
        metric=metric,
        iterations=common,
        reference=reference.values[at_reference],
        candidate=candidate.values[at_candidate],
        only_reference=np.setdiff1d(reference.iterations, candidate.iterations, assume_unique=True),
        only_candidate=np.setdiff1d(candidate.iterations, reference.iterations, assume_unique=True),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Comparison:
    """Two records and the metrics in which they are compared; :func:`compare` makes it.

    Attributes:
        reference: What the candidate is measured against.
        candidate: The record under test.
        metrics: The metrics that the rules judge.
        paired: True when fingerprints prove that both runs started from the same state and saw the same
            batches, False when they prove the opposite, None when there are too few to tell.
        repeats: Further runs of the reference that differ from it in benign ways only.
        rank_0: The same comparison of rank 0 alone, where the records are means of several ranks.
        stated: What the user says of the pairing, which counts where no fingerprints tell; None for nothing.
        stated_precision: What the user says both computed in, which counts where the records do not; empty for nothing.
    """

    reference: Record
    candidate: Record
    metrics: tuple[str, ...] = ("loss",)
    paired: bool | None = None
    repeats: tuple[Record, ...] = ()
    rank_0: "Comparison | None" = None
    stated: bool | None = None
    stated_precision: str = ""

    def __repr__(self) -> str:
        """Say what is compared."""
        metrics = printable(", ".join(self.metrics), length=None)
        return f"<Comparison in {metrics} of {self.reference!r} and {self.candidate!r}>"

    @property
    def sides(self) -> tuple[tuple[str, Record], tuple[str, Record]]:
        """Both records and what they are called."""
        return (("reference", self.reference), ("candidate", self.candidate))

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of both records, where they hold the same ones and several; none otherwise."""
        found = self.reference.of_ranks.keys()
        return tuple(sorted(found)) if len(found) > 1 and found == self.candidate.of_ranks.keys() else ()

    def of_rank(self, rank: int) -> "Comparison":
        """Return the comparison of what one of :attr:`ranks` wrote."""
        reference, candidate = self.reference.of_rank(rank), self.candidate.of_rank(rank)
        return replace(self, reference=reference, candidate=candidate, repeats=(), rank_0=None)

    def curve(self, metric: str) -> PairedCurve:
        """Return one metric of both records, paired by iteration; a metric that a record lacks has no values."""
        return pair(metric, self.reference.curves.get(metric, EMPTY), self.candidate.curves.get(metric, EMPTY))

    @property
    def precision(self) -> str:
        """The candidate's precision as its provenance gives it, or else the user; where nobody does, fp32."""
        return precision_of(self.candidate) or self.stated_precision or "fp32"

    @property
    def losses(self) -> tuple[str, ...]:
        """The judged metrics, then every further metric with 'loss' in its name of a record or one of its ranks."""
        records = (self.reference, self.candidate)
        names = {name: None for each in records for curves in (each.curves, *each.of_ranks.values()) for name in curves}
        return (*self.metrics, *(n for n in names if "loss" in n.lower() and n not in self.metrics))


def compare(
    reference: Record, candidate: Record, *, metrics: Sequence[str] = ("loss",), repeats: Sequence[Record] = ()
) -> Comparison:
    """Measure how two records differ.

    Args:
        reference: What the candidate is measured against.
        candidate: The record under test.
        metrics: The metrics to be judged; the reference must have each of them.
        repeats: Further runs of the reference that differ from it in benign ways only.

    Returns:
        The comparison, ready for :func:`emacheck.decide`.

    Raises:
        UsageError: If the reference lacks one of the metrics; the message lists those that exist. If anything but
            records is given, or a string as the metrics.

    Example:
        >>> from emacheck.record import Record
        >>> loss = Curve(name="loss", iterations=[1, 2], values=[4.0, 3.0])
        >>> one = Record(name="cpu", format="example", curves={"loss": loss})
        >>> compare(one, one).curve("loss").relative_difference.tolist()
        [0.0, 0.0]
    """
    for side, record in (("reference", reference), ("candidate", candidate)):
        _require_record(f"the {side}", record)
    if isinstance(repeats, Record):
        raise UsageError("found one record as the repeats, expected a sequence of them: repeats=[record].")
    for at, record in enumerate(repeats):
        _require_record(f"repeats[{at}]", record)
    if isinstance(metrics, str):
        raise UsageError(f"found the string {metrics!r} as the metrics, expected a sequence: metrics=[{metrics!r}].")
    if not metrics:
        raise UsageError("no metric to judge; name at least one, such as loss.")
    for metric in metrics:
        if metric not in reference.curves:
            beside = (
                f"{metric} is of validations, of which the rule final_metric judges every score anyway.\n"
                if metric in reference.validation
                else ""
            )
            raise UsageError(
                f"the reference {reference.name} has no metric {metric!r}.\n"
                f"  reference has: {', '.join(sorted(reference.curves)) or 'nothing'}\n"
                f"  candidate has: {', '.join(sorted(candidate.curves)) or 'nothing'}\n"
                f"{beside}Choose one that both have: --metric NAME, in Python metrics=[NAME]."
                f"{_arrays(reference, candidate)}"
            )
    return Comparison(
        reference=reference,
        candidate=candidate,
        metrics=tuple(dict.fromkeys(metrics)),
        paired=_same_start(reference, candidate, metrics),
        repeats=tuple(repeats),
    )


def _arrays(*records: Record) -> str:
    """Say how two of several arrays are held against each other, where a file holds several."""
    for record in records:
        if any(oddity.kind is OddityKind.ARRAYS for oddity in record.oddities):
            return f"\nTo hold one against another, name each behind its path, as in {record.name}#NAME."
    return ""


def _require_record(what: str, found: object) -> None:
    if not isinstance(found, Record):
        raise UsageError(
            f"found {type(found).__name__} as {what}, expected a Record: emacheck.read_log(path) reads one, "
            "emacheck.Record(name=..., format=..., curves=...) holds numbers of your own."
        )


def differing_hashes(reference: Record, candidate: Record) -> tuple[bool, tuple[int, ...]]:
    """Tell whether the initial states differ, and which batches do, counted from 1. What one lacks tells nothing.

    Example:
        >>> one, other = (
        ...     Record(name="", format="", curves={}, batches=hashes) for hashes in (("a", "b", "c"), ("a", None, "x"))
        ... )
        >>> differing_hashes(one, other)
        (False, (3,))
    """
    batches = zip(reference.batches, candidate.batches, strict=False)
    differing = tuple(at for at, (r, c) in enumerate(batches, 1) if r and c and r != c)
    states = reference.initial_state, candidate.initial_state
    return all(states) and states[0] != states[1], differing


def _same_start(reference: Record, candidate: Record, metrics: Sequence[str]) -> bool | None:
    """Return what the fingerprints prove: nothing unless they differ, or are of every batch up to the last in both."""
    if any(differing_hashes(reference, candidate)):
        return False
    if not (reference.batches and candidate.batches):
        return None
    curves = [[record.curves.get(metric, EMPTY) for record in (reference, candidate)] for metric in metrics]
    last = max((int(at[-1]) for r, c in curves if (at := pair("", r, c).iterations).size), default=1)
    hashes = [each for record in (reference, candidate) for each in (record.initial_state, *record.batches[:last])]
    covered = min(len(reference.batches), len(candidate.batches)) >= max(last, 1)
    return True if covered and all(hashes) else None
