"""The page for a browser: what is on it, and that nothing in it comes from data."""

import base64
import hashlib
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages_to_show import PAGES, Seen, audited, page
from verdicts_to_show import (
    ANYTHING,
    COMMAND,
    ENVIRONMENT,
    VERDICTS,
    a_finding,
    a_note,
    a_record,
    a_verdict_with,
    an_audit,
    apart_from_style,
    held_to_golden,
)

from emacheck.audit.findings.result import ModuleFinding
from emacheck.cli.judging import with_audit
from emacheck.curve import Curve
from emacheck.judge import Outcome, Verdict
from emacheck.judge.comparison import compare
from emacheck.printable import printable
from emacheck.record import Record
from emacheck.report.html.audited import audit_part
from emacheck.report.html.page import audit_html, html
from emacheck.report.wording import evidence_sentence, figures, headline, needs

HOSTILE = ANYTHING | st.sampled_from(
    [
        "</title><script>x</script>",
        "</style><b>",
        '" onload="x',
        "'>",
        "{{ 7 * 7 }}",
        "{% endfor %}",
        "&lt;b&gt;",
        "]]>",
    ]
)


@pytest.mark.parametrize("name", ["audited", "audit"])
def test_is_as_recorded(name):
    held_to_golden(f"report-{name}.html", apart_from_style(page(name)))


class TestContent:
    @pytest.mark.parametrize("name", VERDICTS)
    def test_says_what_the_other_forms_say(self, name):
        verdict, shown = VERDICTS[name], Seen(page(name)).text
        assert headline(verdict) in shown
        assert f"The verdict rests on {evidence_sentence(verdict)}." in shown
        assert COMMAND in shown
        for finding in verdict.findings:
            row = " ".join((str(finding.outcome), finding.rule, finding.metric, *figures(finding), needs(finding)))
            assert " ".join(row.split()) in shown
            assert all(" ".join(line.split()) in shown for line in finding.message.split("\n"))

    def test_the_title_tells_tabs_apart(self):
        assert "<title>FAIL sdaa|`.log against cuda.log - emacheck</title>" in page("fail")
        assert "<title>PASS runs/sdaa against cpu - emacheck</title>" in page("pass")

    def test_what_failed_comes_first_and_open_and_what_passed_is_folded(self):
        shown = page("fail")
        assert shown.index("What did not pass") < shown.index("mean_relative_error</th>") < shown.index("What passed (")
        assert "<details>\n<summary>What passed (3)</summary>" in shown
        assert "<details open>\n<summary>What passed (" in page("pass")

    def test_says_what_speaks_against_the_records_although_nobody_asked_the_rule(self):
        left_out = (a_finding(rule="coverage", outcome=Outcome.FAIL, message="the candidate lacks 88 iterations"),)
        verdict = replace(VERDICTS["pass"], left_out=left_out)
        shown = html(verdict, command=COMMAND, environment=ENVIRONMENT)
        said = "Left out by the choice of rules: coverage would be FAIL: the candidate lacks 88 iterations."
        assert f"<p>{said}</p>" in shown
        assert ", although coverage would be FAIL</h1>" in shown

    def test_an_audit_and_its_operators_are_told_with_their_tensors_and_the_proof(self):
        shown = Seen(page("audited")).text
        audit = an_audit()
        for said in (audit.module, "The check with operators computed on the CPU", "worst element", *audit.notes):
            assert said in shown
        assert "FAIL decode_head.ema_module output forward isolated 1 1024 30 6.1e-05" in shown
        assert "decode_head.ema_module 1 30 PASS" in shown
        assert "proven; 7 calls of 1 operator judged" in shown
        assert "Every module (4)" in shown

    def test_what_is_wrong_in_the_whole_or_between_processes_has_its_tensors_as_well(self):
        audit = an_audit()
        given = {"outcome": Outcome.FAIL, "phase": "backward", "introduced": True, "limit": 30.0, "message": "wrong"}
        whole = ModuleFinding(module="(iteration)", kind="whole iteration", **given)
        between = ModuleFinding(module="(processes)", kind="processes", **given)
        unequal = ModuleFinding(module="(processes)", kind="processes", **given | {"limit": 0.0})
        for finding, level in ((whole, "end to end"), (between, "processes"), (unequal, None)):
            found = audit_part(replace(audit, findings=(finding,))).findings[0].tensors
            assert {row.level for row in found} == ({level} if level else set())
            assert {row.outcome for row in found} <= {"FAIL"}

    def test_what_limits_the_evidence_is_listed_and_counted_at_the_top(self):
        record = a_record("r", [4.0 - 0.1 * i for i in range(20)], oddities=(a_note("odd"),), complete=False)
        finding = a_finding(limited_by=("odd", "gap"))
        shown = Seen(html(Verdict(comparison=compare(record, record), findings=(finding,)), command="", environment={}))
        assert "2 remarks limit it." in shown.text
        assert "reference: odd" in shown.text
        assert "reference: the run ended before its time" in shown.text

    def test_nothing_found_is_said_and_is_no_pass(self):
        shown = Seen(html(a_verdict_with(), command="", environment={})).text
        assert "INCONCLUSIVE no rule was applied" in shown
        assert "No rule was applied." in shown

    def test_every_metric_that_fails_has_its_curves(self):
        verdict = a_verdict_with(a_finding(metric="grad_norm"))
        curves = {name: Curve(name=name, iterations=[1, 2], values=[4.0, 3.0]) for name in ("loss", "grad_norm")}
        record = Record(name="r", format="example", curves=curves)
        shown = html(Verdict(comparison=compare(record, record), findings=verdict.findings), command="", environment={})
        assert "candidate: loss</figcaption>" in shown
        assert "candidate: grad_norm</figcaption>" in shown

    def test_the_lines_are_told_apart_where_a_server_forbids_the_stylesheet(self):
        values = 3.0 + np.sin(np.arange(1.0, 41.0))
        curves = [Curve(name="loss", iterations=range(1, 41), values=values * far) for far in (1.0, 1.1)]
        records = [Record(name="", format="", curves={"loss": curve}) for curve in curves]
        verdict = Verdict(comparison=compare(*records), findings=(a_finding(),))
        paths = re.findall(r'<path class="([^"]+)"([^>]*) d="', html(verdict, command="", environment={}))
        looks = dict(path for path in paths if path[0].startswith(("reference", "candidate")))
        assert {"reference", "reference raw", "candidate", "candidate raw"} <= set(looks)
        assert len(set(looks.values())) == len(looks), looks

    def test_repeats_to_the_byte(self):
        again = audited()
        assert html(again["verdict"], audit=again["audit"], command=COMMAND, environment=ENVIRONMENT) == page("audited")


class TestSafety:
    @staticmethod
    @cache
    def everything(text, lines):
        """Return both pages, in which each name and message is one of the two."""
        metric = f"{text}~"
        record = {"oddities": (a_note(lines),), "provenance": {metric: text}}
        reference = a_record(text, [4.0, 3.0], metric=metric, header={"word": text, metric: "1"}, **record)
        candidate = a_record(text, [4.0, 2.0], metric=metric, header={"word": text, metric: "2"}, **record)
        audit = an_audit(f"{text}~", f"{lines}~")
        findings = [a_finding(rule=metric, message=lines, metric=metric, unit=metric, limited_by=(lines,))]
        findings.append(a_finding(outcome=Outcome.PASS, observed=0.0, message=lines, metric=metric, unit=metric))
        verdict = with_audit(
            Verdict(comparison=compare(reference, candidate, metrics=[metric]), findings=tuple(findings)), audit
        )
        return Seen(html(verdict, command=text, environment={metric: text}, audit=audit)), Seen(
            audit_html(audit, command=text)
        )

    @settings(max_examples=30)
    @given(HOSTILE)
    def test_no_element_and_no_attribute_comes_from_data(self, foreign):
        plain = self.everything("x", "\n".join("x" * (foreign.count("\n") + 1)))
        for shown, expected in zip(self.everything(foreign, foreign), plain, strict=True):
            assert shown.elements == expected.elements
            assert " ".join(printable(f"{foreign}~").split()) in shown.text

    @given(HOSTILE)
    def test_nothing_is_shown_raw_that_a_browser_would_hide_or_reorder(self, foreign):
        shown = html(a_verdict_with(a_finding(message=foreign), name=foreign), command=foreign, environment={})
        assert all(c.isprintable() or c == "\n" for c in shown)

    @PAGES
    def test_needs_no_other_file_no_network_and_no_script(self, name):
        seen = Seen(page(name))
        tags = {tag for tag, _ in seen.elements}
        assert not tags & {"script", "iframe", "object", "embed", "img", "form", "base", "foreignobject", "use"}
        for _, attributes in seen.elements:
            assert not [each for each in attributes if each == "style" or each.startswith("on") or each == "src"]
            assert attributes.get("href", "#").startswith(("#", "data:image/svg+xml,"))
        assert not re.search(r"url\(|@import|@font-face|image-set|expression", seen.style)
        assert "://" not in re.sub(r"data:image/svg\+xml,[^\"]*", "", page(name))

    @PAGES
    def test_the_policy_allows_the_stylesheet_and_nothing_else(self, name):
        seen = Seen(page(name))
        (policy,) = [
            each["content"] for each in seen.all("meta") if each.get("http-equiv") == "Content-Security-Policy"
        ]
        digest = base64.b64encode(hashlib.sha256(seen.style.encode()).digest()).decode()
        assert policy.split("; ") == [
            "default-src 'none'",
            f"style-src 'sha256-{digest}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
        first = [tag for tag, _ in seen.elements].index("style")
        assert first > seen.elements.index(("meta", {"http-equiv": "Content-Security-Policy", "content": policy}))
