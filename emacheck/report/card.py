"""The verdict as a card: a dozen lines of Markdown for a pull request, the outcome first."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from emacheck.counted import counted
from emacheck.judge.choice import default_rules
from emacheck.judge.comparison import Comparison
from emacheck.judge.figures import number
from emacheck.judge.rules.modelzoo import Means, ModelZoo, means_of_script
from emacheck.judge.verdict import AUDIT, Finding, Outcome, Verdict
from emacheck.printable import printable
from emacheck.record import Record, hash_of_samples
from emacheck.report.markdown_text import code_block, escaped, table
from emacheck.report.records import extent, scalars
from emacheck.report.wording import (
    evidence_sentence,
    figures,
    first_curve,
    full_label,
    headline,
    left_out_sentences,
    needs,
    start_sentence,
)

MOST_FINDINGS = 3
MOST_REMARKS = 3
LENGTH = 300  # of one message
AUDIT_LENGTH = 800  # of what the audit says, which goes on to the operator that is the cause
UNKNOWN = "not known"
Hashes = tuple[str | None, str | None]
KNOWN_DIGITS = 16  # of a fingerprint
PACKAGES = ("torch", "torchvision", "mmengine", "mmcv", "mmseg", "sdaa", "cuda", "cudnn", "driver", "runtime")


def card(verdict: Verdict, *, command: str, environment: Mapping[str, Any], hashes: Hashes = (None, None)) -> str:
    """Return the verdict as a section that can be pasted into a pull request.

    Args:
        verdict: What was decided.
        command: The command that reproduces it.
        environment: What is known about the machine and the software that judged.
        hashes: SHA-256 of the logs of reference and candidate, None where there is no such file.

    Returns:
        The section, in GitHub's Markdown, with a newline at the end. Of a verdict that is no PASS it shows nothing that
        passed.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> print(card(decide(compare(record, record)), command="emacheck compare a b", environment={}).splitlines()[0])
        ## emacheck: PASS
    """
    remarks = list(dict.fromkeys(note for finding in verdict.findings for note in finding.limited_by))
    blocks = [
        f"## emacheck: {verdict.outcome}",
        f"**{verdict.outcome}** {escaped(headline(verdict).removeprefix(str(verdict.outcome)).lstrip(': '))}. "
        f"It rests on {evidence_sentence(verdict)}.{_not_applied(verdict)}",
        _records(verdict, hashes),
        _compared(verdict),
        "\n".join((*_findings(verdict), *_limits(remarks), *_left_out(verdict), _modelzoo(verdict))),
        f"Judged by emacheck {escaped(str(environment.get('emacheck', '(version unknown)')))}; to reproduce:",
        code_block(printable(command, length=None)),
    ]
    return "\n\n".join(blocks) + "\n"


def _not_applied(verdict: Verdict) -> str:
    """Name the rules that would have been applied if nobody had chosen others: few rules pass more."""
    applied = {finding.rule for finding in verdict.findings}
    lacking = [name for name in default_rules(verdict.comparison) if name not in applied]
    return f" Rules that suit these logs and were not applied: {', '.join(lacking)}." if applied and lacking else ""


def _records(verdict: Verdict, hashes: Hashes) -> str:
    comparison = verdict.comparison
    sides, metric = (comparison.reference, comparison.candidate), comparison.metrics[0]
    rows = [
        ("log", *(f"{escaped(record.name)} ({escaped(record.format)})" for record in sides)),
        (f"iterations of {escaped(metric)}", *(_extent(record, metric) for record in sides)),
        ("device", *(escaped(_device(record)) for record in sides)),
        ("precision", *(escaped(scalars(record.provenance).get("precision", "")) for record in sides)),
        ("software", *(escaped(_software(record)) for record in sides)),
        ("initial state", *((record.initial_state or "")[:KNOWN_DIGITS] for record in sides)),
        ("batches", *(_batches(record) for record in sides)),
        ("SHA-256", *(known or "" for known in hashes)),
    ]
    shown = [(name, *(known or UNKNOWN for known in both)) for name, *both in rows if any(both)]
    return table(("", "reference", "candidate"), shown, "lll")


def _extent(record: Record, metric: str) -> str:
    processes = f" (mean of {record.ranks} processes)" if record.of_ranks else ""
    return f"{extent(record, metric)}{processes}{'' if record.complete else ', **ended before its time**'}"


def _device(record: Record) -> str:
    known = scalars(record.provenance)
    named = (known.get("device type", known.get("device", "")), known.get("device name", ""))
    return ", ".join(dict.fromkeys(filter(None, named))) or record.header.get("environment.GPU 0", "")


def _software(record: Record) -> str:
    versions = record.provenance.get("versions")
    known = dict(versions) if isinstance(versions, Mapping) else {}
    if not known:
        known = {k.removeprefix("versions."): v for k, v in record.header.items() if k.startswith("versions.")}
    return ", ".join(f"{k} {v}" for k, v in known.items() if any(name in str(k).lower() for name in PACKAGES))


def _batches(record: Record) -> str:
    known = [each for each in record.batches if each]
    return hash_of_samples(known)[:KNOWN_DIGITS] if known and len(known) == len(record.batches) else ""


def _compared(verdict: Verdict) -> str:
    paired = first_curve(verdict)
    common = counted(len(paired.iterations), "iteration")
    # Not "missing": of a record with a larger logging interval they are not.
    alone = {"reference": len(paired.only_reference), "candidate": len(paired.only_candidate)}
    more = "".join(f", {count} only in the {side}" for side, count in alone.items() if count)
    return f"Compared: {common} in both{more}; {escaped(start_sentence(verdict))}."


def _findings(verdict: Verdict) -> Iterator[str]:
    """Say what decided: of a PASS what is closest to its limit, and otherwise only what did not pass."""
    passed, worst = verdict.outcome is Outcome.PASS, verdict.worst
    found = [finding for finding in verdict.findings if passed or finding.outcome is not Outcome.PASS]
    found.sort(key=lambda each: (each is not worst, each.outcome is not Outcome.FAIL, -each.severity))
    first = [finding for finding in found if finding is worst or finding.severity > 0][:MOST_FINDINGS]
    shown = [finding for finding in found if finding in first or finding.rule == AUDIT]
    yield from map(_finding, shown)
    if more := len(found) - len(shown):
        yield f"- and {counted(more, 'more finding')} that passed" if passed else f"- and {more} more that did not pass"


def _finding(finding: Finding) -> str:
    observed, limit = figures(finding)
    needed = f", needs {needs(finding)}" if needs(finding) not in ("", "-") else ""
    lines = finding.message.split("\n")
    message = lines[-1 if finding.rule == ModelZoo.name else 0]  # the figures of the model zoo stand below
    if finding.limited_by:
        message = message.partition("; limited by: ")[0]  # the remarks stand below, too
    length = AUDIT_LENGTH if finding.rule == AUDIT else LENGTH
    return (
        f"- **{finding.outcome}** {escaped(full_label(finding))}: {observed} (limit {limit}{needed}; "
        f"{escaped(finding.unit)}): {escaped(message, length=length)}"
    )


def _limits(remarks: list[str]) -> Iterator[str]:
    for remark in remarks[:MOST_REMARKS]:
        yield f"- limited by: {escaped(remark, length=LENGTH)}"
    if len(remarks) > MOST_REMARKS:
        yield f"- limited by {counted(len(remarks) - MOST_REMARKS, 'more remark')}"


def _left_out(verdict: Verdict) -> Iterator[str]:
    return (f"- {escaped(sentence, length=LENGTH)}" for sentence in left_out_sentences(verdict))


def _modelzoo(verdict: Verdict) -> str:
    """Give the figures that cards of the model zoo carry, those with signs beside those without."""
    comparison, rank = _of_rank_0(verdict.comparison)
    means, metric = means_of_script(comparison), escaped(comparison.metrics[0])
    if means is None:
        return f"- Figures of the model zoo's script: none, it sees no value of {metric}"
    over = f"{counted(means.count, 'value')} of {metric}{rank}, by position"
    if means.unseen:
        over += f"; without {counted(means.unseen, 'value')} that it cannot see: NaN, infinite or negative"
    return (
        f"- Figures of the model zoo's script (last {over}): with signs, as it prints them, MeanRelativeError "
        f"{_full(means.relative)} and MeanAbsoluteError {_full(means.absolute)}; without signs "
        f"{number(means.unsigned_relative)} and {number(means.unsigned_absolute)}{_its_rule(verdict, means)}"
    )


def _its_rule(verdict: Verdict, means: Means) -> str:
    """Say what the script's rule makes of its figures where that is not what we say, or rests on their signs."""
    rule = ModelZoo()
    kept = rule.passes(means.relative, means.absolute)
    by_signs = kept and not rule.passes(means.unsigned_relative, means.unsigned_absolute)
    agrees = kept is (verdict.outcome is Outcome.PASS)
    if agrees and not by_signs:
        return ""
    said = f"{'kept' if kept else 'not kept'}{' by the signs alone' if by_signs else ''}"
    decides = "" if agrees else ", which does not decide here"
    return f". Its limits (with signs, {rule.limit} or {rule.absolute_limit}) are {said}{decides}"


def _of_rank_0(comparison: Comparison) -> tuple[Comparison, str]:
    """Return the comparison of rank 0, at which the script looks, and how to call it."""
    if comparison.rank_0 is not None:
        return comparison.rank_0, " of rank 0"
    records = (comparison.reference, comparison.candidate)
    if not any(0 in record.of_ranks for record in records):
        return comparison, ""
    reference, candidate = (record.of_rank(0) if 0 in record.of_ranks else record for record in records)
    return replace(comparison, reference=reference, candidate=candidate), " of rank 0"


def _full(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value)
