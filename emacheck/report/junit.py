"""The verdict as JUnit XML, the form in which CI servers take test results."""

import xml.etree.ElementTree as ET

from emacheck.judge.verdict import Finding, Outcome, Verdict
from emacheck.printable import MESSAGE_LENGTH, printable
from emacheck.report.wording import figures, full_label, headline, needs

ELEMENTS = {Outcome.FAIL: "failure", Outcome.INCONCLUSIVE: "error", Outcome.PASS: "system-out"}


def junit(verdict: Verdict, *, command: str) -> str:
    """Return the verdict as one test suite with one test case for each finding.

    FAIL is a ``failure``. INCONCLUSIVE is an ``error``, JUnit's word for a test that could not be carried out: as
    ``skipped`` it would be green, and no evidence must never look like a PASS. For the same reason a verdict without
    any findings holds one case with an error.

    Args:
        verdict: What was decided.
        command: The command that reproduces it.

    Returns:
        The XML, with a newline at the end.

    Example:
        >>> from emacheck import Curve, Record, compare, decide
        >>> loss = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
        >>> record = Record(name="cpu", format="example", curves={"loss": loss})
        >>> print(junit(decide(compare(record, record)), command="emacheck compare a b").splitlines()[1])
        <testsuite name="emacheck" tests="10" failures="0" errors="0" skipped="0">
    """
    cases = [_case(finding) for finding in verdict.findings] or [_case_without_findings()]
    suite = ET.Element(
        "testsuite",
        name="emacheck",
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped="0",
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("outcome", str(verdict.outcome)),
        ("reference", printable(verdict.comparison.reference.name)),
        ("candidate", printable(verdict.comparison.candidate.name)),
        ("headline", headline(verdict)),
        ("command", printable(command, length=None)),
    ):
        ET.SubElement(properties, "property", name=name, value=value)
    suite.extend(cases)
    ET.indent(suite)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(suite, encoding="unicode")}\n'


def _case(finding: Finding) -> ET.Element:
    case = ET.Element("testcase", classname=f"emacheck.{printable(finding.rule)}", name=full_label(finding))
    observed, limit = figures(finding)
    summary = f"{finding.outcome}: observed {observed}, limit {limit} ({printable(finding.unit)})"
    details = [printable(finding.message, newlines=True, length=MESSAGE_LENGTH)]
    if finding.iteration is not None:
        details.append(f"iteration: {finding.iteration}")
    if finding.outcome is Outcome.PASS:
        ET.SubElement(case, ELEMENTS[finding.outcome]).text = "\n".join((summary, *details))
        return case
    details.append(f"needs a limit of: {needs(finding)}")
    element = ET.SubElement(case, ELEMENTS[finding.outcome], type=printable(finding.rule), message=summary)
    element.text = "\n".join(details)
    return case


def _case_without_findings() -> ET.Element:
    case = ET.Element("testcase", classname="emacheck.verdict", name="verdict")
    ET.SubElement(case, "error", type="verdict", message="INCONCLUSIVE: no rule was applied")
    return case
