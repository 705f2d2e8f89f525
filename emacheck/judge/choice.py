"""Which rules suit a comparison, where the user names none."""

from emacheck.judge.comparison import Comparison
from emacheck.judge.forensics.headers import different_experiment
from emacheck.judge.forensics.metric_names import is_score
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.rules.first_iterations import FirstIterations

ALWAYS = ("finite", "integrity", "coverage", "schedule")
MEANS = ("mean_relative_error", "mean_absolute_error", "bias", "worst_window")
DEFAULT_RULES = (*ALWAYS, "smoothing", *MEANS)
RANKS = "ranks"


def default_rules(comparison: Comparison) -> tuple[str, ...]:
    """Return the names of the rules that suit a comparison.

    Paired runs are held against each other iteration by iteration: by the means of their differences, over all and over
    the worst window, by those of each rank where both have the same several ones, by their first iterations, and by the
    envelope of the repeats where there are some. Runs that are not paired differ at every iteration however good the
    device is: they are asked whether they end at the same level. All are asked whether they
    end at the same scores, if the reference (of unpaired runs, either) was validated, for what only a validation shows
    never reaches the training loss. Runs of which it is not known whether they are paired are judged as paired, and
    :mod:`emacheck.judge.excuses.data` takes back what only paired runs could be blamed for. Runs
    that claim to be one experiment have to prove that by their fingerprints.

    Args:
        comparison: What was measured.

    Returns:
        The rules in the order in which they are reported.

    Example:
        >>> from emacheck import Curve, Record, compare
        >>> def run(seed, first):
        ...     loss = Curve(name="loss", iterations=[1, 2, 3], values=[first, 4.0, 3.9])
        ...     return Record(name="", format="", curves={"loss": loss}, header={"seed": seed})
        >>> [default_rules(compare(run("1", 4.1), other))[-2:] for other in (run("1", 4.1), run("2", 4.3))]
        [('worst_window', 'first_iterations'), ('schedule', 'equivalence')]
    """
    unpaired = pairing_of(comparison).pairing is Pairing.UNPAIRED
    knowingly = bool(different_experiment(comparison.reference, comparison.candidate))
    proof = ("fingerprints",) if comparison.paired or (comparison.paired is False and not knowingly) else ()
    scores = ("final_metric",) if _validated(comparison, unpaired=unpaired) else ()
    if unpaired:
        return (*proof, *ALWAYS, "equivalence", *scores)
    return (*proof, *DEFAULT_RULES, *_of_paired_runs(comparison), *scores)


def _validated(comparison: Comparison, *, unpaired: bool) -> bool:
    """Tell whether there are scores to hold the candidate's against, or that it lacks.

    A run that ends before the other's first validation lacks none. Curves of paired runs carry a verdict where only the
    candidate was validated; runs that are not paired are told by their scores above all.
    """
    records = (comparison.reference, comparison.candidate)
    ours, theirs = ({n: c for n, c in r.validation.items() if len(c) and is_score(n)} for r in records)
    if ours and theirs:
        return True
    lacking = comparison.reference if theirs else comparison.candidate
    last = max((int(curve.iterations[-1]) for curve in lacking.curves.values() if len(curve)), default=0)
    first = min((int(curve.iterations[0]) for curve in (ours or theirs).values()), default=last + 1)
    return first <= last and (unpaired or bool(ours))


def _of_paired_runs(comparison: Comparison) -> tuple[str, ...]:
    # Where it is not known that the runs are paired, a difference at the first iteration may be that of the data.
    paired = pairing_of(comparison).pairing is Pairing.PAIRED
    early = ("first_iterations",) if paired and FirstIterations().can_tell(comparison) else ()
    ranks = (RANKS,) if comparison.ranks else ()
    return (*ranks, *(("envelope",) if comparison.repeats else ()), *early)
