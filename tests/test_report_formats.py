"""Reports that other programs read: Markdown, JUnit, GitHub."""

import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from verdicts_to_show import ANYTHING, VERDICTS, a_finding, a_record, a_verdict, a_verdict_with

from emacheck import Curve, Record, compare, decide
from emacheck.cli.command_line import quoted
from emacheck.judge import Outcome
from emacheck.oddity import OddityKind, oddity
from emacheck.printable import printable
from emacheck.report.card import card
from emacheck.report.document import document
from emacheck.report.github import annotations
from emacheck.report.html.page import html
from emacheck.report.junit import junit
from emacheck.report.markdown import markdown
from emacheck.report.markdown_text import escaped
from emacheck.report.text import text
from emacheck.report.wording import headline
from emacheck.strict_json import to_json


class TestMarkdown:
    @staticmethod
    def cells(shown):
        """Return the number of cells in each row of each table, as a renderer sees them."""
        rows, found = None, []
        for token in MarkdownIt("commonmark").enable("table").parse(shown):
            if token.type == "table_open":
                found.append([])
            elif token.type == "tr_open":
                rows = 0
            elif token.type in {"td_open", "th_open"}:
                rows += 1
            elif token.type == "tr_close":
                found[-1].append(rows)
        return found

    @given(ANYTHING)
    def test_tables_keep_their_columns(self, foreign):
        verdict = a_verdict_with(a_finding(message=foreign, metric=foreign), name=foreign, metric=foreign)
        shown = markdown(verdict, command=foreign, environment={foreign: foreign}, plot=None)
        findings, records, environment = self.cells(shown)
        assert findings == [7, 7]
        assert records == [3] * 5
        assert environment == [2, 2]
        in_source = [line for line in shown.splitlines() if line.startswith("| ")]
        assert {len(line.split("|")) - 2 for line in in_source} <= {7, 3, 2}

    @given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=40))
    def test_foreign_text_is_shown_as_it_is(self, foreign):
        tokens = MarkdownIt("commonmark", {"html": True}).parse(f"x {escaped(foreign)}")
        (inline,) = [token for token in tokens if token.type == "inline"]
        # A comment parts what would else be the name of a person or the number of an issue.
        shown = [child for child in inline.children if (child.type, child.content) != ("html_inline", "<!-- -->")]
        assert {child.type for child in shown} <= {"text", "text_special"}
        assert "".join(child.content for child in shown) == f"x {foreign}"

    @pytest.mark.parametrize("address", ["https://example.org", "www.example.org"])
    def test_addresses_do_not_become_links(self, address):
        assert address not in escaped(address)

    def test_the_picture_is_embedded_under_a_safe_name(self):
        shown = markdown(VERDICTS["pass"], command="", environment={}, plot="a (b).png")
        assert "](a%20%28b%29.png)" in shown

    @given(st.text(alphabet="`ab \n", max_size=20))
    def test_the_command_cannot_leave_its_block(self, command):
        shown = markdown(VERDICTS["pass"], command=command, environment={}, plot=None)
        last = MarkdownIt("commonmark").enable("table").parse(shown)[-1]
        assert (last.type, last.content) == ("fence", f"{printable(command)}\n")

    def test_more_oddities_than_anybody_reads_are_counted_but_not_those_that_limit_the_verdict(self):
        notes = [oddity(OddityKind.SKIPPED, f"note {at}") for at in range(5000)]
        record = replace(a_record("r", [1.0, 2.0]), oddities=(*notes, oddity(OddityKind.GAP, "a gap")))
        written = markdown(a_verdict(record, a_record("c", [1.0, 2.0])), command="", environment={}, plot=None)
        assert "LIMITS: a gap" in written
        assert "- and 4901 more oddities" in written
        assert len(written) < 20_000


class TestJUnit:
    @given(ANYTHING, st.sampled_from(list(Outcome)))
    def test_is_xml_whatever_the_text(self, foreign, outcome):
        finding = a_finding(message=foreign, metric=foreign, unit=foreign, outcome=outcome)
        suite = ET.fromstring(junit(a_verdict_with(finding, name=foreign, metric=foreign), command=foreign))  # noqa: S314
        assert suite.find("testcase").get("name") == f"bias[{printable(foreign)}]"

    @pytest.mark.parametrize(
        ("outcome", "element"),
        [(Outcome.PASS, "system-out"), (Outcome.FAIL, "failure"), (Outcome.INCONCLUSIVE, "error")],
    )
    def test_what_is_not_a_pass_is_not_green(self, outcome, element):
        suite = ET.fromstring(junit(a_verdict_with(a_finding(outcome=outcome)), command=""))  # noqa: S314
        assert [child.tag for child in suite.find("testcase")] == [element]
        assert suite.get("failures") == str(int(element == "failure"))
        assert suite.get("errors") == str(int(element == "error"))

    def test_no_findings_are_not_green(self):
        suite = ET.fromstring(junit(a_verdict_with(), command=""))  # noqa: S314
        assert (suite.get("tests"), suite.get("errors")) == ("1", "1")


class TestGitHub:
    def test_names_what_did_not_pass(self):
        verdict = a_verdict_with(
            a_finding(), a_finding(outcome=Outcome.INCONCLUSIVE), a_finding(outcome=Outcome.PASS, observed=0.0)
        )
        assert [line.split(" ")[0] for line in annotations(verdict)] == ["::error", "::warning"]

    def test_what_decided_comes_first_for_only_ten_are_shown(self):
        findings = [a_finding(metric=f"loss_{i}", observed=float(i), limit=0.5) for i in range(1, 20)]
        first, *others = annotations(a_verdict_with(*findings))
        assert first.startswith("::error title=emacheck bias[loss_19]::")
        assert len(others) == 18

    def test_a_pass_is_one_notice(self):
        assert annotations(VERDICTS["pass"]) == [
            f"::notice title=emacheck::{headline(VERDICTS['pass'])} (rests on curves alone, without an audit)"
        ]

    def test_no_findings_are_a_warning(self):
        assert annotations(a_verdict_with()) == ["::warning title=emacheck::INCONCLUSIVE: no rule was applied"]

    @given(ANYTHING)
    def test_foreign_text_cannot_start_another_command(self, foreign):
        (line,) = annotations(a_verdict_with(a_finding(message=foreign, metric=foreign), metric=foreign))
        assert "\n" not in line
        properties = line[len("::error title=") :].split("::")[0]
        assert not set(properties) & set(":,")

    def test_escapes_as_the_runner_expects(self):
        (line,) = annotations(a_verdict_with(a_finding(message="100 %\nx", metric="a,b:c"), metric="a,b:c"))
        assert line.startswith("::error title=emacheck bias[a%2Cb%3Ac]::")
        assert line.endswith("100 %25%0Ax")


def test_names_from_a_log_are_no_commands_for_the_server_that_runs_the_job():
    names = ("::error::loss", "x ::stop-commands::token loss", "##[error]loss", "a ###[error]loss", "##vso[task.x]loss")

    def record(last):
        curves = {name: Curve(name=name, iterations=range(20), values=[*range(39, 20, -1), last]) for name in names}
        return Record(name=f"::error::{last}", format="x", curves=curves)

    for candidate in (record(20.0), record(math.nan)):
        verdict = decide(compare(record(20.0), candidate, metrics=names))
        asked = {"command": quoted(["emacheck", *names]), "environment": {}}
        shown = [text(verdict, command=asked["command"], colour=False, width=width) for width in range(40, 100, 3)]
        shown += [markdown(verdict, **asked, plot=None), to_json(document(verdict, **asked))]
        for output in shown:
            assert not re.search(r"(?m)^\s*::|##\w*\[", output), output
        assert json.loads(shown[-1])["candidate"]["metrics"] == sorted(names)


def test_what_headers_say_differently_is_shown_and_never_obeyed():
    def record(seed):
        loss = Curve(name="loss", iterations=range(20), values=range(40, 20, -1))
        return Record(name="log", format="x", curves={"loss": loss}, header={"seed": seed})

    verdict = decide(compare(record("5"), record("6\n::error::x\n##[error]\x1b[2J\u202e<img src=x>")))
    asked = {"command": "emacheck", "environment": {}}
    assert document(verdict, **asked)["pairing"]["why"].startswith("seed 5 against 6\n::error")
    forms = [text(verdict, command="", colour=False), to_json(document(verdict, **asked))]
    forms += [markdown(verdict, **asked, plot=None), card(verdict, **asked), html(verdict, **asked)]
    for output in forms:
        assert not re.search(r"(?m)^\s*::|##\w*\[|[\x1b\u202e]", output), output
        assert "<img" not in output or output in forms[:2]
