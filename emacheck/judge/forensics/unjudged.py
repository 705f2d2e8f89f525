"""What records hold beside the judged metrics, as far as it speaks against a run: validation, gradients, components."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from emacheck.counted import counted
from emacheck.curve import Curve
from emacheck.judge.arithmetic import average
from emacheck.judge.comparison import EMPTY, Comparison, pair
from emacheck.judge.forensics.metric_names import class_score, is_rate, is_score
from emacheck.judge.forensics.pairing import Pairing, pairing_of
from emacheck.judge.noise.rounding import resolution

LASTING = 3
"""Values at the end, none of which is finite, that no step which a scaler left out explains."""
HALVINGS, EVERY = 32, 1000
"""Steps that a scaler leaves out: it halves its scale from at most 2^32, and doubles it every 1000 steps or more."""
GROSS = 0.5
"""Mean difference of a loss component, relative to its level, that is no noise between paired runs."""
LATEST = 3
"""So many of the last validations are asked whether their loss is far off."""
COUNTS = 0.01
"""Part of the judged metric that the difference of a component must amount to, for it to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """Values of one metric that are not finite.

    Attributes:
        side: Whose they are, ``reference`` or ``candidate``.
        metric: The metric's name.
        count: How many they are.
        iteration: The first of them.
        message: What they are, as a clause.
    """

    side: str
    metric: str
    count: int
    iteration: int
    message: str


def broken_validation(comparison: Comparison) -> Iterator[Broken]:
    """Find the losses and scores of validations that are not finite, the candidate's before the reference's.

    The score of a class that the data lack is NaN: one that is NaN in both records alike is left out.
    """
    sides = {"candidate": comparison.candidate.validation, "reference": comparison.reference.validation}
    for side, validation in sides.items():
        for metric, curve in validation.items():
            bad = ~np.isfinite(curve.values)
            if not bad.any() or not ("loss" in metric.lower() or is_score(metric)) or _of_no_class(metric, sides):
                continue
            count, first = int(bad.sum()), int(curve.iterations[np.argmax(bad)])
            message = (
                f"{metric} in validation of the {side} is NaN or infinite {count} times, first at iteration {first}"
            )
            yield Broken(side=side, metric=metric, count=count, iteration=first, message=message)


def _of_no_class(metric: str, sides: Mapping[str, Mapping[str, Curve]]) -> bool:
    curves = [validation.get(metric, EMPTY) for validation in sides.values()]
    alike = all(np.array_equal(curve.iterations, curves[0].iterations) for curve in curves)
    return bool(alike and class_score(metric) and all(np.all(np.isnan(curve.values)) for curve in curves))


def broken_metrics(comparison: Comparison) -> Iterator[Broken]:
    """Find metrics beside the losses that the candidate has as NaN or infinite where the reference has numbers.

    A gradient norm is infinite wherever a scaler of fp16 leaves a step out. That is as it should be up to the number of
    steps that the candidate's record says were left out, else, if it does not say fp32, tf32 or bf16, up to what a
    scaler does, and up to the number of the reference. It never explains an end at which nothing is finite any more.
    """
    reference, candidate = comparison.reference.curves, comparison.candidate.curves
    losses = frozenset(comparison.losses)
    for metric in candidate:
        if metric in losses or metric not in reference or is_rate(metric):
            continue
        paired = comparison.curve(metric)
        bad = np.isfinite(paired.reference) & ~np.isfinite(paired.candidate)
        if not bad.any():
            continue
        count, first = int(bad.sum()), int(paired.iterations[np.argmax(bad)])
        at_end = bad.size if bad.all() else int(np.argmin(bad[::-1]))
        lasting = at_end >= min(LASTING, bad.size)
        if not lasting and count <= _left_out(comparison, metric):
            continue
        message = (
            f"{metric} of the candidate is NaN or infinite {counted(count, 'time')} where that of the reference is a "
            f"number, first at iteration {first}"
        )
        if lasting:
            message += f", and from iteration {paired.iterations[bad.size - at_end]} on to the end"
        yield Broken(side="candidate", metric=metric, count=count, iteration=first, message=message)


def _left_out(comparison: Comparison, metric: str) -> int:
    """Return how many values of a metric may be infinite because a scaler left the step out."""
    if not _is_gradient_norm(metric):
        return 0
    curves = comparison.candidate.curves
    skipped = curves.get("skipped_steps", EMPTY).values
    skipped = skipped[np.isfinite(skipped)]
    if skipped.size:
        return int(skipped.max())
    experiment = comparison.candidate.provenance.get("experiment")
    if isinstance(experiment, Mapping) and experiment.get("precision", "fp16") != "fp16":
        return 0
    iterations = curves[metric].iterations
    scaler = HALVINGS + int(iterations[-1] - iterations[0]) // EVERY
    return max(scaler, int(np.sum(~np.isfinite(comparison.reference.curves[metric].values))))


def lacking_components(comparison: Comparison) -> tuple[str, ...]:
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
    return (*(name for name in _components(comparison) if not len(curves.get(name, EMPTY))), *validated)


def lacking_in_part(comparison: Comparison) -> Iterator[str]:
    """Say which components of the loss the candidate lacks at some iterations at which it has the judged metrics."""
    judged = [comparison.candidate.curves.get(metric, EMPTY).iterations for metric in comparison.metrics]
    for name in _components(comparison):
        theirs = comparison.candidate.curves.get(name, EMPTY).iterations
        missing = np.setdiff1d(comparison.reference.curves[name].iterations, theirs)
        missing = missing[np.isin(missing, np.concatenate(judged))]
        if len(theirs) and len(missing):
            yield f"the candidate lacks {name} {counted(len(missing), 'time')}, first at iteration {missing[0]}"


def lacking_others(comparison: Comparison) -> Iterator[str]:
    """Say which gradient norms, or that learning rates, a log of the reference's format lacks."""
    ours, theirs = ([n for n, c in r.curves.items() if len(c)] for r in (comparison.reference, comparison.candidate))
    lacking = [name for name in ours if _is_gradient_norm(name) and name not in theirs]
    if not any(map(is_rate, theirs)):
        lacking += [name for name in ours if is_rate(name)]
    lacking = [name for name in lacking if name not in comparison.metrics]
    if lacking and comparison.reference.format == comparison.candidate.format:
        yield f"the candidate lacks {', '.join(lacking)}, which the reference has"


def must_move(comparison: Comparison) -> Iterator[str]:
    """Return the gradient norms and components of the loss that the reference has beside the judged metrics."""
    yield from _components(comparison)
    yield from (n for n in comparison.reference.curves if _is_gradient_norm(n) and n not in comparison.metrics)


def gross_components(comparison: Comparison) -> Iterator[str]:
    """Say which components of the loss are far off, in a clause each.

    mean(|c - r|) must be over GROSS * mean(|r|), beyond printed decimals, and over COUNTS of the judged metric's level:
    a component that has fallen to almost nothing may differ by any factor.
    """
    least = COUNTS * max(_level(comparison, metric) for metric in comparison.metrics)
    yield from _far_off(comparison, _components(comparison), least)


def gross_others(comparison: Comparison) -> Iterator[str]:
    """Say which gradient norms and scores of trainings that may be paired are far off, in a clause each."""
    if pairing_of(comparison).pairing is not Pairing.UNPAIRED:
        others = (name for name in comparison.reference.curves if name not in comparison.metrics)
        yield from _far_off(comparison, (each for each in others if _is_gradient_norm(each) or is_score(each)), 0.0)


def gross_validation(comparison: Comparison) -> Iterator[str]:
    """Say which losses of validations are far off, in a clause each.

    The median of |c - r| over the last LATEST common validations must be over GROSS * |r|, beyond printed decimals, and
    over COUNTS of the judged metric's level. The first validations of a run may be anywhere.
    """
    least = COUNTS * max(_level(comparison, metric) for metric in comparison.metrics)
    ours, theirs = comparison.reference.validation, comparison.candidate.validation
    for name in (name for name in ours if "loss" in name.lower() and name in theirs):
        paired = pair(name, ours[name], theirs[name])
        finite = np.flatnonzero(np.isfinite(paired.reference) & np.isfinite(paired.candidate))[-LATEST:]
        if not finite.size:
            continue
        hidden = resolution(ours[name], theirs[name])
        off = float(np.median(np.maximum(np.abs(paired.difference[finite]) - hidden, 0)))
        level = float(np.median(np.abs(paired.reference[finite])))
        if off > max(GROSS * level, least):
            r, c = (each[finite[-1]] for each in (paired.reference, paired.candidate))
            yield (
                f"{name} in validation is far off: {c:.4g} against {r:.4g} at iteration {paired.iterations[finite[-1]]}"
            )


def _far_off(comparison: Comparison, names: "Iterator[str]", least: float) -> Iterator[str]:
    for name in names:
        paired = comparison.curve(name)
        finite = np.isfinite(paired.reference) & np.isfinite(paired.candidate)
        if not finite.any():
            continue
        hidden = resolution(comparison.reference.curves[name], comparison.candidate.curves[name])
        off = average(np.maximum(np.abs(paired.difference[finite]) - hidden, 0))
        level = _level(comparison, name)
        if off > max(GROSS * level, least):
            yield f"{name} is off by {off:.3g} on average, its level in the reference is {level:.3g}"


def _level(comparison: Comparison, metric: str) -> float:
    """Return the mean |reference| of the common iterations, 0 without any."""
    values = comparison.curve(metric).reference
    values = np.abs(values[np.isfinite(values)])
    return average(values) if values.size else 0.0


def _components(comparison: Comparison) -> Iterator[str]:
    for name, curve in comparison.reference.curves.items():
        # The scale of a scaler is no loss.
        if "loss" in name.lower() and "scale" not in name.lower() and name not in comparison.metrics and len(curve):
            yield name


def _is_gradient_norm(metric: str) -> bool:
    return "grad" in metric.lower() and "norm" in metric.lower()
