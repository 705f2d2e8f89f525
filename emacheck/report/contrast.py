"""What the headers of two logs say differently: whether they are logs of one experiment at all."""

from emacheck.judge.verdict import Verdict
from emacheck.report.printable import printable

# A path differs between any two machines and decides nothing.
PATHS = ("data_root", "work_dir", "save_dir", "filename")
SHOWN = 6


def header_differences(verdict: Verdict) -> tuple[tuple[str, str, str], ...]:
    """Return name, reference's and candidate's entry of everything in which the headers differ, as they stand.

    Only where both logs have a header; an entry that one of them lacks is shown as ``-``.
    """
    reference, candidate = verdict.comparison.reference.header, verdict.comparison.candidate.header
    if not reference or not candidate:
        return ()
    names = sorted({*reference, *candidate})
    pairs = ((name, reference.get(name, "-"), candidate.get(name, "-")) for name in names)
    return tuple((name, ours, theirs) for name, ours, theirs in pairs if ours != theirs)


def experiment_sentence(verdict: Verdict) -> str:
    """Return in what the two logs are different experiments, as a sentence; empty if nothing says so.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=[4.0] * 20)
        >>> def record(seed, ranks):
        ...     return Record(name="", format="", curves={"loss": loss}, header={"seed": seed}, ranks=ranks)
        >>> experiment_sentence(decide(compare(record("1", 1), record("2", 4))))
        'Two different experiments: processes 1 against 4; seed 1 against 2.'
    """
    comparison = verdict.comparison
    found = []
    if comparison.reference.ranks != comparison.candidate.ranks:
        found.append(f"processes {comparison.reference.ranks} against {comparison.candidate.ranks}")
    found += [
        f"{printable(name)} {printable(ours)} against {printable(theirs)}"
        for name, ours, theirs in header_differences(verdict)
        if (name == "seed" or name.startswith("config.")) and not name.endswith(PATHS)
    ]
    if not found:
        return ""
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"Two different experiments: {'; '.join(found[:SHOWN])}{more}."
