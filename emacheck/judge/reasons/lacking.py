"""What the candidate lacks beside the judged metrics: components of the loss, losses of validations, other metrics."""

from collections.abc import Iterator

import numpy as np

from emacheck.counted import counted, the_first
from emacheck.judge.comparison import EMPTY, Comparison
from emacheck.judge.forensics.beside import components
from emacheck.judge.forensics.metric_names import is_gradient_norm, is_rate
from emacheck.judge.reasons.reason import SHOWN, Reason
from emacheck.judge.verdict import Outcome


def lacking_components(comparison: Comparison) -> Iterator[Reason]:
    """Say which components of the loss, and losses of validations, the candidate lacks altogether."""
    lacking = _lacking(comparison)
    if lacking:
        message = f"the candidate lacks {the_first(lacking, SHOWN)}, which the reference has"
        # Another format may have no place for it.
        alike = comparison.reference.format == comparison.candidate.format
        yield Reason(outcome=Outcome.INCONCLUSIVE if alike else None, message=message)


def _lacking(comparison: Comparison) -> tuple[str, ...]:
    """Return the components of the loss that the reference has and the candidate lacks, and losses of validations.

    A candidate that ends before the first validation of the reference lacks none of these.
    """
    curves, validation = comparison.candidate.curves, comparison.candidate.validation
    last = max((int(curve.iterations[-1]) for curve in curves.values() if len(curve)), default=0)
    validated = (
        f"{name} in validation"
        for name, curve in comparison.reference.validation.items()
        if "loss" in name.lower()
        and len(curve)
        and curve.iterations[0] <= last
        and not len(validation.get(name, EMPTY))
    )
    return (*(name for name in components(comparison) if not len(curves.get(name, EMPTY))), *validated)


def lacking_in_part(comparison: Comparison) -> Iterator[Reason]:
    """Say which components of the loss the candidate lacks at some iterations at which it has the judged metrics."""
    judged = [comparison.candidate.curves.get(metric, EMPTY).iterations for metric in comparison.metrics]
    for name in components(comparison):
        theirs = comparison.candidate.curves.get(name, EMPTY).iterations
        missing = np.setdiff1d(comparison.reference.curves[name].iterations, theirs)
        missing = missing[np.isin(missing, np.concatenate(judged))]
        if len(theirs) and len(missing):
            message = f"the candidate lacks {name} {counted(len(missing), 'time')}, first at iteration {missing[0]}"
            yield Reason(message=message)


def lacking_others(comparison: Comparison) -> Iterator[Reason]:
    """Say which gradient norms, or that learning rates, a log of the reference's format lacks."""
    ours, theirs = ([n for n, c in r.curves.items() if len(c)] for r in (comparison.reference, comparison.candidate))
    lacking = [name for name in ours if is_gradient_norm(name) and name not in theirs]
    if not any(map(is_rate, theirs)):
        lacking += [name for name in ours if is_rate(name)]
    lacking = [name for name in lacking if name not in comparison.metrics]
    if lacking and comparison.reference.format == comparison.candidate.format:
        yield Reason(message=f"the candidate lacks {', '.join(lacking)}, which the reference has")
