"""Whatever was found: every form of one verdict says the same, and that is what the verdict holds."""

import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from verdicts_to_show import ANYTHING, COMMAND, a_note, a_record, a_verdict, a_verdict_with, an_audit

from emacheck import Curve, Record
from emacheck.audit.findings.text import text as audit_text
from emacheck.judge import Finding, Outcome
from emacheck.oddity import OddityKind, oddity
from emacheck.report.audited import audit_markdown
from emacheck.report.card import MOST_FINDINGS, card
from emacheck.report.document import document
from emacheck.report.github import annotations
from emacheck.report.html.page import audit_html, html
from emacheck.report.junit import junit
from emacheck.report.markdown import markdown
from emacheck.report.text import text
from emacheck.report.wording import headline
from emacheck.strict_json import decode_value, to_json

ASKED = {"command": COMMAND, "environment": {}}
TAGS = {"failure": "FAIL", "error": "INCONCLUSIVE", "system-out": "PASS"}
# Beside the limit, on either side of it, further away, and whatever else a float may be.
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])
TIMES = st.sampled_from([1.0, 1 + 1e-6, 1 - 1e-6, 1 + 2.0**-52, 1 - 2.0**-53, -1.0004, 0.5, -3.0])


@st.composite
def findings(draw):
    limit = abs(draw(st.floats(1e-320, 1e307) | st.sampled_from([0.0, 0.05, 1e-300, 10.0, math.inf])))
    observed = draw(st.floats(-1e307, 1e307) | NOT_FINITE | TIMES.map(lambda factor: limit * factor))
    return Finding(
        rule=draw(st.sampled_from(["bias", "worst_window", "coverage", "finite"])),
        outcome=draw(st.sampled_from(list(Outcome))),
        observed=observed,
        limit=limit,
        unit=draw(st.sampled_from(["of the reference", "of the reference, signed"])),
        iteration=draw(st.none() | st.integers(0, 2**60)),
        message=draw(ANYTHING),
        would_pass_at=abs(observed) if math.isfinite(observed) else None,
        metric="loss",
        limited_by=tuple(draw(st.lists(st.sampled_from(["a gap", "only common ones", "the candidate: odd"])))),
    )


def of_text(shown):
    lines = shown.splitlines()
    start = next((at for at, line in enumerate(lines) if line.split()[:3] == ["outcome", "rule", "observed"]), None)
    rows = [line.split() for line in lines[start + 1 : lines.index("", start)]] if start is not None else []
    return [(outcome, rule, observed, limit, "".join(needs)) for outcome, rule, observed, limit, *needs in rows]


def of_markdown(shown):
    tokens = MarkdownIt("commonmark").enable("table").parse(shown.split("## Records")[0])
    cells = [token.content.strip("*") for token in tokens if token.type == "inline" and token.level == 4]
    rows = [cells[at : at + 7] for at in range(7, len(cells), 7)]
    return [(outcome, rule.replace("\\", ""), *numbers) for outcome, rule, _, *numbers in rows]


def of_page(shown):
    rows = re.findall(r'<tr role="row">\n(<td role="cell" data-label="outcome">.*?)</tr>', shown, re.DOTALL)
    found = []
    for row in rows:
        cells = [unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        assert f'<span class="outcome {cells[0].lower()}">' in row
        found.append((cells[0], cells[1], *cells[3:7]))
    return found


def of_junit(shown):
    suite = ET.fromstring(shown)  # noqa: S314 - our own
    assert suite.get("skipped") == "0"
    found = []
    for case in suite.findall("testcase"):
        (said,) = case
        summary = said.get("message") or said.text.splitlines()[0]
        figures = re.match(r"(\w+): observed (\S+), limit (\S+) \(", summary)
        assert figures[1] == TAGS[said.tag]
        found.append((*figures.groups(), "".join(re.findall(r"\nneeds a limit of: (\S+)$", said.text))))
    for count, outcome in (("failures", "FAIL"), ("errors", "INCONCLUSIVE")):
        assert int(suite.get(count)) == sum(each[0] == outcome for each in found)
    return found


@settings(max_examples=25)
@given(st.lists(findings(), min_size=1, max_size=6))
def test_every_form_shows_each_finding_alike_and_on_its_own_side_of_the_limit(found):
    verdict = a_verdict_with(*found)
    shown = of_text(text(verdict, command=COMMAND, colour=False, width=60))
    page = html(verdict, **ASKED)
    with_iterations = [
        (*row, "" if f.iteration is None else str(f.iteration)) for row, f in zip(shown, found, strict=True)
    ]
    assert of_markdown(markdown(verdict, **ASKED, plot=None)) == with_iterations
    assert of_page(page) == sorted(with_iterations, key=lambda row: ("FAIL", "INCONCLUSIVE", "PASS").index(row[0]))
    assert of_junit(junit(verdict, command=COMMAND)) == [(outcome, *numbers) for outcome, _, *numbers in shown]
    for (outcome, rule, observed, limit, needs), finding in zip(shown, found, strict=True):
        assert (outcome, rule) == (str(finding.outcome), finding.rule)
        assert (abs(float(observed)) <= float(limit)) == (abs(finding.observed) <= finding.limit)
        assert f" {observed} (limit {limit})" in str(finding)
        assert float(observed) == pytest.approx(finding.observed, rel=6e-4, abs=0, nan_ok=True)
        if outcome == "PASS":
            assert needs == ""
        elif finding.would_pass_at is None:
            assert needs == "-"
        else:
            assert finding.would_pass_at <= float(needs)
    stored = json.loads(to_json(document(verdict, **ASKED)))
    for each, finding in zip(stored["findings"], found, strict=True):
        for key in ("observed", "limit"):
            np.testing.assert_equal(decode_value(each[key]), getattr(finding, key))
    said = str(verdict.outcome)
    assert stored["outcome"] == said == headline(verdict).split()[0]
    assert f'<header class="{said.lower()}">' in page
    assert card(verdict, **ASKED).startswith(f"## emacheck: {said}\n")
    assert f"</span> {headline(verdict).removeprefix(said).strip()}</h1>" in unescape(page)


@settings(max_examples=25)
@given(st.lists(findings(), max_size=12))
def test_what_did_not_pass_is_counted_wherever_it_is_not_shown(found):
    found = [replace(finding, metric=f"loss_{at}") for at, finding in enumerate(found)]
    verdict = a_verdict_with(*found)
    outcomes = [str(finding.outcome) for finding in found]
    shown = card(verdict, **ASKED)
    listed = re.findall(r"(?m)^- \*\*(\w+)\*\*", shown)
    more = sum(int(count) for count in re.findall(r"(?m)^- and (\d+) more (?:that did not pass|finding)", shown))
    assert len(listed) <= MOST_FINDINGS
    if verdict.outcome is Outcome.PASS:
        assert len(listed) + more == len(found)
        assert [line.split(" ")[0] for line in annotations(verdict)] == ["::notice"]
    else:
        assert "PASS" not in listed
        assert len(listed) + more == len(found) - outcomes.count("PASS")
        commands = [line.split(" ")[0] for line in annotations(verdict)]
        assert commands.count("::error") == outcomes.count("FAIL")
        assert commands.count("::warning") == (outcomes.count("INCONCLUSIVE") if found else 1)


def test_the_page_lists_every_remark_that_it_says_limits_the_verdict():
    falling = np.linspace(4.0, 2.0, 100)
    fine, coarse = (
        Record(
            name=f"every {step}",
            format="example",
            curves={"loss": Curve(name="loss", iterations=range(step, 101, step), values=falling[step - 1 :: step])},
            oddities=(oddity(OddityKind.GAP, "a gap"), a_note("a note")),
        )
        for step in (2, 4)
    )
    verdict = a_verdict(fine, coarse)
    page = html(verdict, **ASKED)
    assert "missing" not in page.replace("share of iterations missing", "") + card(verdict, **ASKED)
    assert "25 iterations in both, 25 only in the reference; " in card(verdict, **ASKED)
    limits = page[page.index('<h2 id="limits">') :].partition("</section>")[0]
    items = [unescape(re.sub("<[^>]+>", "", item)) for item in re.findall("<li>(.*?)</li>", limits)]
    every = "the candidate logs every 4 iterations, the reference every 2 iterations: only common ones were compared"
    assert f'<a href="#limits">{len([item for item in items if "LIMITS" in item])} remarks limit it.</a>' in page
    assert items == [
        f"coverage[loss]: LIMITS: {every}",
        "reference: LIMITS: a gap",
        "candidate: LIMITS: a gap",
        "reference: a note",
        "candidate: a note",
    ]


def test_a_pass_of_a_rule_that_had_nothing_to_compare_says_so_in_every_form():
    falling = np.linspace(4.0, 2.0, 20)
    verdict = a_verdict(a_record("r", falling), a_record("c", falling))
    nothing = "no learning rates on both sides to compare"
    assert f"\nschedule: {nothing}\n" in text(verdict, command=COMMAND, colour=False)
    for shown in (markdown(verdict, **ASKED, plot=None), html(verdict, **ASKED), junit(verdict, command=COMMAND)):
        assert nothing in shown


class TestAudit:
    @staticmethod
    def of_one_tensor(ratio):
        (error, *_) = an_audit().errors
        return replace(an_audit(), errors=(replace(error, error=ratio * error.accepted),), findings=(), operators=None)

    @pytest.mark.parametrize("ratio", [30 * (1 + 1e-5), 30 * (1 - 1e-5), 30.0])
    def test_a_ratio_is_on_its_own_side_of_its_limit_in_every_form(self, ratio):
        audit = self.of_one_tensor(ratio)
        table = audit_text(audit, command="").splitlines()[3].split()
        markdown_row = audit_markdown(audit, picture=None)[-1].splitlines()[-1].strip("| ").split(" | ")
        cells = re.findall(
            'data-label="(?:x accepted error|limit)" class="number">([^<]+)<', audit_html(audit, command="")
        )
        for shown, limit in (table[4:6], markdown_row[5:7], cells[:2]):
            assert (float(shown), float(limit)) == (pytest.approx(ratio, rel=2e-5), 30)
            assert (float(shown) <= 30) == (ratio <= 30)

    def test_of_a_ratio_that_is_no_number_the_table_says_so(self):
        rows = [line.split() for line in audit_text(an_audit(), command="").splitlines() if " forward " in line]
        assert ["isolated", "forward", "4", "2", "NaN", "30", "decode_head.conv", "output"] in rows
