"""Which rules suit a comparison, where the user names none."""

from emacheck.judge.comparison import Comparison
from emacheck.judge.final_metric import is_score
from emacheck.judge.first_iterations import FirstIterations
from emacheck.judge.headers import different_experiment
from emacheck.judge.pairing import Pairing, pairing_of

ALWAYS = ("finite", "integrity", "coverage", "schedule")
MEANS = ("mean_relative_error", "mean_absolute_error", "bias", "worst_window")
DEFAULT_RULES = (*ALWAYS, "smoothing", *MEANS)


def default_rules(comparison: Comparison) -> tuple[str, ...]:
    """Return the names of the rules that suit a comparison.

    Paired runs are held against each other iteration by iteration: by the means of their differences, over all and over
    the worst window, by their first iterations, and by the envelope of the repeats where there are some. Runs that are
    not paired differ at every iteration however good the device is: they are asked whether they end at the same level
    and at the same scores.
    Runs of which that is not known are judged as paired, and :func:`emacheck.judge.settling.settle` takes back what
    only paired runs could be blamed for. Runs that claim to be one experiment have to prove that by their fingerprints.

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
    if unpaired:
        scores = any(map(is_score, (*comparison.reference.validation, *comparison.candidate.validation)))
        return (*proof, *ALWAYS, "equivalence", *(("final_metric",) if scores else ()))
    return (*proof, *DEFAULT_RULES, *_of_paired_runs(comparison))


def _of_paired_runs(comparison: Comparison) -> tuple[str, ...]:
    # Where it is not known that the runs are paired, a difference at the first iteration may be that of the data.
    paired = pairing_of(comparison).pairing is Pairing.PAIRED
    early = ("first_iterations",) if paired and FirstIterations().can_tell(comparison) else ()
    return (*(("envelope",) if comparison.repeats else ()), *early)
