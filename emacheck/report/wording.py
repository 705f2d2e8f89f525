"""What every report says in the same words: numbers, the headline, the first divergence."""

from dataclasses import dataclass

from emacheck.judge.advice import rounded_up
from emacheck.judge.comparison import PairedCurve
from emacheck.judge.divergence import Kind, hint
from emacheck.judge.figures import beside, number
from emacheck.judge.forensics.one_run import of_one_run
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.rules.means import MeanRelativeError
from emacheck.judge.rules.schedule import NO_RATES, Schedule
from emacheck.judge.verdict import AUDIT, Finding, Outcome, Verdict
from emacheck.oddity import OddityKind
from emacheck.printable import MESSAGE_LENGTH, printable

OF_THE_RECORDS = ("fingerprints", "coverage", "schedule", "smoothing", "integrity")  # not of the device's numbers


def figures(finding: Finding) -> tuple[str, str]:
    """Return observed and limit with as many digits as it takes to see on which side of the limit observed lies.

    Example:
        >>> figures(Finding(rule="bias", outcome=Outcome.FAIL, observed=-0.0200004, limit=0.02,
        ...                 unit="of the reference, signed", iteration=None, message=""))
        ('-0.0200004', '0.02')
    """
    return beside(finding.observed, finding.limit, signed="signed" in finding.unit)


def needs(finding: Finding) -> str:
    """Return the limit that a finding needs to pass, rounded up so that it does pass; empty for a PASS.

    Example:
        >>> needs(Finding(rule="bias", outcome=Outcome.FAIL, observed=0.12341, limit=0.02, unit="", iteration=None,
        ...               message="", would_pass_at=0.12341))
        '0.1235'
    """
    if finding.outcome is Outcome.PASS:
        return ""
    if finding.would_pass_at is None:
        return "-"
    nearest = number(finding.would_pass_at)
    return nearest if float(nearest) >= finding.would_pass_at else number(rounded_up(finding.would_pass_at))


def label(verdict: Verdict, finding: Finding) -> str:
    """Return the rule's name, with the metric in brackets where more than one is spoken of."""
    metrics = {*verdict.comparison.metrics, *(f.metric for f in verdict.findings if f.rule != AUDIT)}
    return full_label(finding) if len(metrics) > 1 else finding.rule


def full_label(finding: Finding) -> str:
    """Return rule and metric, such as ``bias[loss]``; the audit is about no metric."""
    return finding.rule if finding.rule == AUDIT else f"{finding.rule}[{printable(finding.metric)}]"


def explained(finding: Finding) -> bool:
    """Tell whether a finding needs its message beside it: it did not pass, or what it passed with is to be known."""
    return (
        finding.outcome is not Outcome.PASS
        or not finding.severity <= 1
        or bool(finding.limited_by)
        or finding.rule == "modelzoo"
        or (finding.rule == "integrity" and finding.observed > 0)
        or (finding.rule == Schedule.name and finding.message == NO_RATES)
    )


def headline(verdict: Verdict) -> str:
    """Return outcome, rule, observed, limit and iteration in one line, and what a reader must not overlook.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> def record(values):
        ...     loss = Curve(name="loss", iterations=range(1, 21), values=values)
        ...     return Record(name="cpu", format="example", curves={"loss": loss})
        >>> headline(decide(compare(record([4.0] * 20), record([4.0] * 19 + [40.0]))))
        'FAIL mean_relative_error 0.45 (limit 0.05) at iteration 20'
    """
    finding = verdict.worst
    if finding is None:
        return f"{verdict.outcome}: no rule was applied"
    observed, limit = figures(finding)
    where = "" if finding.iteration is None else f" at iteration {finding.iteration}"
    where += f" in {printable(finding.module)}" if finding.module else ""
    unpaired = pairing_of(verdict.comparison).pairing is Pairing.UNPAIRED
    equal = identical(verdict)
    if equal and verdict.outcome is not Outcome.PASS:
        # A device may be wrong in what no curve of this training shows, and a log in what is not judged.
        judged = "curves" if finding.module else ", ".join(map(printable, verdict.comparison.metrics))
        equal = f"{judged} {equal}"
    one = "logs of one run" if of_one_run(verdict.comparison) else ""
    on_cpu = any(oddity.kind is OddityKind.ON_CPU for oddity in verdict.comparison.candidate.oddities)
    remarks = (equal, one, "partly on the CPU" * on_cpu, "not paired" if unpaired else "", left_out_remark(verdict))
    said = "".join(f", {remark}" for remark in remarks if remark)
    return f"{verdict.outcome} {label(verdict, finding)} {observed} (limit {limit}){where}{said}"


def left_out_remark(verdict: Verdict) -> str:
    """Return which rules that nobody asked for would make the outcome worse, in a few words; empty if none would."""
    worse_than = {Outcome.PASS: (Outcome.INCONCLUSIVE, Outcome.FAIL), Outcome.INCONCLUSIVE: (Outcome.FAIL,)}
    worse = [each for each in verdict.left_out if each.outcome in worse_than.get(verdict.outcome, ())]
    said = dict.fromkeys(f"{finding.rule} would be {finding.outcome}" for finding in worse)
    return f"although {' and '.join(said)}" if said else ""


def left_out_sentences(verdict: Verdict) -> list[str]:
    """Return what speaks against the records in the view of rules that nobody asked for, one sentence each."""
    return [
        f"Left out by the choice of rules: {label(verdict, each)} would be {each.outcome}: "
        f"{printable(each.message.partition(' (accept with ')[0], length=MESSAGE_LENGTH)}."
        for each in verdict.left_out
    ]


def evidence_sentence(verdict: Verdict) -> str:
    """Return which levels of evidence a verdict rests on, as what follows *rests on*.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> record = Record(name="", format="", curves={"loss": Curve(name="loss", iterations=[1], values=[4.0])})
        >>> evidence_sentence(decide(compare(record, record)))
        'curves alone, without an audit'
    """
    return {
        (): "nothing",
        ("curve",): "curves alone, without an audit",
        ("audit",): "an audit of the device alone",
    }.get(verdict.evidence, "curves and an audit of the device, tensor by tensor")


def next_sentence(verdict: Verdict) -> str:
    """Return what tells more about a FAIL of curves alone, as a sentence; empty where their message says what to do.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> def record(factor):
        ...     loss = Curve(name="loss", iterations=range(1, 21), values=[factor * (4 - i / 10) for i in range(20)])
        ...     return Record(name="cpu", format="example", curves={"loss": loss})
        >>> next_sentence(decide(compare(record(1), record(0.6))))
        'To find the module that is wrong: emacheck audit --device NAME, where the candidate ran.'
        >>> next_sentence(decide(compare(record(1), record(1))))
        ''
    """
    worst = verdict.worst
    if worst is None or worst.outcome is not Outcome.FAIL or AUDIT in verdict.evidence or worst.rule in OF_THE_RECORDS:
        return ""
    return "To find the module that is wrong: emacheck audit --device NAME, where the candidate ran."


def identical(verdict: Verdict) -> str:
    """Return how equal the judged metrics are if they are equal at all common iterations, else an empty string."""
    paired = [verdict.comparison.curve(metric) for metric in verdict.comparison.metrics]
    if not paired or not all(p.iterations.size and p.first_unequal() is None for p in paired):
        return ""
    fewest = min(paired, key=lambda p: len(p.iterations) / _held(p))
    return max((equality(verdict, p.metric) for p in paired), key=len) + _common_of_all(fewest)


def _held(paired: PairedCurve) -> int:
    """Return how many iterations either record holds."""
    return len(paired.iterations) + len(paired.only_reference) + len(paired.only_candidate)


def _common_of_all(paired: PairedCurve) -> str:
    """Return of how many iterations the common ones are: what is equal up to where a run died is no comfort."""
    common, held = len(paired.iterations), _held(paired)
    if common == held:
        return ""
    return f" in the {'one common iteration' if common == 1 else f'{common} common iterations'} of {held}"


def equality(verdict: Verdict, metric: str) -> str:
    """Return what equal values of a metric prove: logs with few decimals cannot show that bits are identical."""
    curves = [r.curves[metric] for r in (verdict.comparison.reference, verdict.comparison.candidate)]
    return "identical in every printed digit" if any(curve.quantum > 0 for curve in curves) else "bit-identical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where the first judged metric of the two records parts.

    Attributes:
        unequal_at: First iteration at which the values differ at all.
        over_limit_at: First iteration whose |relative difference| is not within ``limit``.
        limit: The limit of ``mean_relative_error`` if that rule was applied, else its default.
    """

    unequal_at: int | None
    over_limit_at: int | None
    limit: float


def divergence(verdict: Verdict) -> Divergence:
    """Return where the first judged metric parts."""
    paired = first_curve(verdict)
    limits = [finding.limit for finding in verdict.findings if finding.rule == MeanRelativeError.name]
    limit = limits[0] if limits else MeanRelativeError().limit
    return Divergence(unequal_at=paired.first_unequal(), over_limit_at=paired.first_above(limit), limit=limit)


def first_curve(verdict: Verdict) -> PairedCurve:
    """Return the first judged metric of both records."""
    return verdict.comparison.curve(verdict.comparison.metrics[0])


def metrics_to_look_at(verdict: Verdict) -> tuple[str, ...]:
    """Return the metrics whose curves tell most: those that did not pass, the worst first, then the other judged ones.

    Example:
        >>> from emacheck import Curve, Record, compare, decide, make_rules
        >>> def record(factor):
        ...     curves = [Curve(name=name, iterations=range(20), values=[at] * 20) for name, at in factor.items()]
        ...     return Record(name="cpu", format="example", curves={curve.name: curve for curve in curves})
        >>> comparison = compare(record({"a": 4.0, "b": 1.0}), record({"a": 4.0, "b": 2.0}), metrics=["a", "b"])
        >>> metrics_to_look_at(decide(comparison, make_rules(["bias"])))
        ('b', 'a')
    """
    comparison = verdict.comparison
    held = comparison.reference.curves.keys() | comparison.candidate.curves.keys()
    worst = [verdict.worst] if verdict.worst is not None else []
    worrying = sorted(
        (finding for finding in (*worst, *verdict.findings) if finding.outcome is not Outcome.PASS),
        key=lambda finding: finding.outcome is not Outcome.FAIL,
    )
    return tuple(name for name in dict.fromkeys((*(f.metric for f in worrying), *comparison.metrics)) if name in held)


def divergence_sentence(verdict: Verdict) -> str:
    """Return where the first judged metric parts, as a sentence.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> def record(values):
        ...     loss = Curve(name="loss", iterations=range(1, 21), values=values)
        ...     return Record(name="cpu", format="example", curves={"loss": loss})
        >>> divergence_sentence(decide(compare(record([4.0] * 20), record([4.0] * 20))))
        'loss is bit-identical in all 20 common iterations.'
    """
    paired, parting = first_curve(verdict), divergence(verdict)
    metric, count = printable(paired.metric), len(paired.iterations)
    if not count:
        return f"{metric}: no iteration is in both records, so nothing was compared."
    if parting.unequal_at is None:
        equal = f"{metric} is {equality(verdict, paired.metric)}"
        if others := _held(paired) - count:
            return f"{equal}{_common_of_all(paired)}; of the other {'one' if others == 1 else others} nothing is known."
        return f"{equal} in {'the one common iteration' if count == 1 else f'all {count} common iterations'}."
    limit = number(parting.limit)
    if parting.over_limit_at is None:
        return (
            f"{metric} first differs at iteration {parting.unequal_at}; "
            f"its relative difference stays within {limit} at every common iteration."
        )
    return (
        f"{metric} first differs at iteration {parting.unequal_at}; "
        f"its relative difference is first not within {limit} at iteration {parting.over_limit_at}."
    )


def hint_sentence(verdict: Verdict) -> str:
    """Return what the way in which the two records part suggests, as a sentence; empty if nothing."""
    suggested = hint(verdict)
    if suggested.kind in (Kind.IDENTICAL, Kind.UNKNOWN):
        return ""
    return f"Hint, not a verdict: {suggested.kind}: {printable(suggested.evidence, length=None).rstrip('.')}."


def start_sentence(verdict: Verdict) -> str:
    """Return whether both runs are paired, and how that is known."""
    return printable(str(pairing_of(verdict.comparison)), length=MESSAGE_LENGTH)
