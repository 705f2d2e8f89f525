"""What the headers of two logs say differently: whether they are logs of one experiment at all."""

from emacheck.judge.forensics import headers
from emacheck.judge.reasons.reason import listed
from emacheck.judge.verdict import Verdict
from emacheck.printable import printable


def header_differences(verdict: Verdict) -> tuple[tuple[str, str, str], ...]:
    """Return name, reference's and candidate's entry of everything in which the headers differ, as they stand.

    Only where both logs have a header; an entry that one of them lacks is shown as ``-``.
    """
    return headers.header_differences(verdict.comparison.reference, verdict.comparison.candidate)


def experiment_sentence(verdict: Verdict) -> str:
    """Return in what the two logs are different experiments, as a sentence; empty if nothing says so.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
        >>> def record(seed, ranks):
        ...     return Record(name="", format="", curves={"loss": loss}, header={"seed": seed}, ranks=ranks)
        >>> experiment_sentence(decide(compare(record("1", 1), record("2", 4))))
        'Two different experiments: processes 1 against 4; seed 1 against 2.'
    """
    comparison = verdict.comparison
    found = list(headers.different_processes(comparison.reference, comparison.candidate))
    found += [
        f"{printable(name)} {printable(ours)} against {printable(theirs)}"
        for name, ours, theirs in header_differences(verdict)
        if (name == "seed" or name.startswith("config.")) and not name.endswith(headers.PATHS)
    ]
    return f"Two different experiments: {listed(found)}." if found else ""
