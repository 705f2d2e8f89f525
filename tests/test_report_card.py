"""The card for a pull request: short, the outcome first, and never more than the verdict says."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from markdown_it import MarkdownIt
from verdicts_to_show import (
    ANYTHING,
    COMMAND,
    ENVIRONMENT,
    LOW,
    REFERENCE,
    VERDICTS,
    a_finding,
    a_record,
    a_verdict,
    a_verdict_with,
    an_audit,
)

from emacheck.cli.judging import with_audit
from emacheck.curve import Curve
from emacheck.judge import Outcome, Verdict, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.rules.modelzoo import ModelZoo
from emacheck.record import Record
from emacheck.report.card import card
from emacheck.report.wording import evidence_sentence, headline

FALLING = [4.0 - i / 64 for i in range(100)]


def a_card(verdict, **more):
    return card(verdict, **{"command": COMMAND, "environment": {"emacheck": "1.2.3"}, **more})


def figures_of(shown):
    (line,) = [line for line in shown.splitlines() if line.startswith("- Figures of the model zoo's script")]
    return line


class TestOutcome:
    ALL = {  # noqa: RUF012
        **VERDICTS,
        "no rule": a_verdict_with(),
        "audited": with_audit(VERDICTS["pass"], an_audit()),
        "a metric fails": a_verdict_with(a_finding(outcome=Outcome.PASS, observed=0.0), a_finding(metric="b")),
    }

    @pytest.mark.parametrize("name", ALL)
    def test_comes_first_with_what_it_rests_on(self, name):
        verdict = self.ALL[name]
        title, _, first, *_ = a_card(verdict).splitlines()
        assert title == f"## emacheck: {verdict.outcome}"
        assert first.startswith(f"**{verdict.outcome}** ")
        assert headline(verdict).removeprefix(str(verdict.outcome)).lstrip(": ") in first.replace("\\", "")
        assert f". It rests on {evidence_sentence(verdict)}." in first

    @pytest.mark.parametrize("name", [name for name, verdict in ALL.items() if verdict.outcome is not Outcome.PASS])
    def test_that_is_no_pass_has_nothing_beside_it_that_looks_like_one(self, name):
        shown = a_card(self.ALL[name])
        assert not re.search(r"(?i)\bpass(?:es|ed)?\b(?! against)", shown.replace("did not pass", ""))

    def test_of_a_pass_is_not_hidden_behind_what_a_chosen_rule_leaves_out(self):
        left_out = (a_finding(rule="coverage", outcome=Outcome.FAIL, message="the candidate lacks 88 iterations"),)
        shown = a_card(replace(VERDICTS["pass"], left_out=left_out))
        assert ", although coverage would be FAIL. It rests on" in shown
        assert "- Left out by the choice of rules: coverage would be FAIL: the candidate lacks 88 iterations." in shown

    def test_of_chosen_rules_is_told_with_those_that_were_not(self):
        pair = a_record("r", FALLING), a_record("c", [v * 0.61 for v in FALLING])
        shown = a_card(a_verdict(*pair, make_rules(["modelzoo"])))
        assert shown.startswith("## emacheck: PASS\n")
        assert "Rules that suit these logs and were not applied: finite, integrity, coverage, schedule, " in shown
        assert "This passes only because the errors are signed" in shown
        assert "not applied" not in a_card(a_verdict(*pair))

    def test_of_many_findings_shows_the_worst_and_counts_the_others(self):
        findings = [a_finding(metric=f"loss_{i}", observed=float(i), limit=0.5) for i in range(1, 60)]
        shown = a_card(a_verdict_with(*findings))
        assert [re.search(r"loss_\d+", line)[0] for line in shown.splitlines() if line.startswith("- **")] == [
            *("loss_59", "loss_58", "loss_57")
        ]
        assert "- and 56 more that did not pass" in shown
        assert len(shown.splitlines()) < 30

    def test_of_many_findings_the_worst_is_not_looked_for_again_at_each(self, monkeypatch):
        looks, outcome = [], Verdict.outcome.fget
        monkeypatch.setattr(Verdict, "outcome", property(lambda verdict: looks.append(verdict) or outcome(verdict)))
        for count in (2, 60):
            looks.append(count)
            a_card(a_verdict_with(*(a_finding(metric=f"loss_{i}", observed=float(i)) for i in range(count))))
        assert looks.index(60) == len(looks) - looks.index(60)

    def test_of_an_audit_that_passed_is_said_with_its_figures(self):
        audit = an_audit()
        good = replace(audit, errors=tuple(e for e in audit.errors if e.passes), findings=(), operators=None, notes=())
        shown = a_card(with_audit(VERDICTS["pass"], good))
        assert "It rests on curves and an audit of the device, tensor by tensor." in shown
        assert "- **PASS** audit: 1 (limit 30; x accepted error): " in shown

    def test_of_an_audit_that_failed_names_the_operator_and_its_proof_however_much_limits_it(self):
        blamed = (
            "decode_head.ema_module (EMAModule) is wrong on the reference's own inputs: output, first in phase forward"
        )
        others = "3 of its tensors are over the limit; 12 more modules are wrong; the whole iteration differs as well"
        operator = (
            "decode_head.ema_module: aten.bmm.default (forward) is wrong: ratio 8050 (limit 30), 4 of 7 calls, only "
            "those with inputs that are not contiguous; with it computed on the CPU the module passes"
        )
        remark = f"29 operators ran through the fallback of sdaa, {'and say nothing about it, ' * 12}"
        message = f"{blamed}; {others}; {operator}"
        shown = a_card(
            a_verdict_with(a_finding(rule="audit", message=f"{message}; limited by: {remark}", limited_by=(remark,)))
        )
        (line,) = [line for line in shown.splitlines() if line.startswith("- **FAIL** audit")]
        assert line.replace("\\", "").endswith(message)
        assert "- limited by: 29 operators" in shown

    def test_is_limited_by_what_the_records_lack(self):
        shown = a_card(a_verdict_with(a_finding(limited_by=("odd", "gap", "torn", "short"))))
        assert [line for line in shown.splitlines() if line.startswith("- limited by: ")] == [
            *("- limited by: odd", "- limited by: gap", "- limited by: torn")
        ]
        assert "- and 1 more remark that limit" not in shown
        assert "- limited by 1 more remark" in shown


class TestModelzoo:
    def test_figures_stand_with_and_without_signs(self):
        candidate = [v * (1.25 if i % 2 else 0.75) for i, v in enumerate(FALLING)]
        shown = a_card(a_verdict(a_record("r", FALLING), a_record("c", candidate)))
        said = ModelZoo().check(compare(a_record("r", FALLING), a_record("c", candidate)))[0].message.splitlines()
        line = figures_of(shown)
        for printed in said[:2]:
            assert printed.replace(":", "") in line
        assert "without signs 0.25 and " in line
        assert line.endswith(
            "Its limits (with signs, 0.05 or 0.0002) are kept by the signs alone, which does not decide here"
        )

    def test_are_those_of_rank_0(self):
        def record(name, factor):
            ranks = {rank: [v * (1 + rank * factor) for v in FALLING] for rank in (0, 1)}
            curves = {
                rank: {"loss": Curve(name="loss", iterations=range(1, 101), values=values)}
                for rank, values in ranks.items()
            }
            means = [v * (1 + factor / 2) for v in FALLING]
            mean = Curve(name="loss", iterations=range(1, 101), values=means)
            return Record(name=name, format="example", curves={"loss": mean}, ranks=2, of_ranks=curves)

        line = figures_of(a_card(a_verdict(record("r", 0.0), record("c", 0.5))))
        assert "(last 50 values of loss of rank 0, by position)" in line
        assert "MeanRelativeError 0.0 and" in line

    def test_say_what_the_script_cannot_see(self):
        broken = [math.nan if i in (3, 5) else v for i, v in enumerate(FALLING)]
        line = figures_of(a_card(a_verdict(a_record("r", FALLING), a_record("c", broken))))
        assert "without 2 values that it cannot see: NaN, infinite or negative" in line

    def test_are_left_out_where_it_sees_nothing(self):
        nothing = a_verdict(a_record("r", FALLING), a_record("c", [math.nan] * 100), make_rules(["finite"]))
        assert figures_of(a_card(nothing)).endswith("none, it sees no value of loss")


class TestRecords:
    def test_are_told_with_device_software_and_fingerprints_where_these_are_known(self):
        provenance = {
            "device": {"type": "sdaa", "name": "a card"},
            "experiment": {"precision": "fp32"},
            "versions": {"emacheck": "9", "python": "3", "torch": "2.13.0", "onedl-mmengine": "0.10.12"},
        }
        known = a_record("sdaa", FALLING, provenance=provenance, initial_state="ab" * 32, batches=("b",) * 100)
        shown = a_card(a_verdict(a_record("cuda.log", FALLING), known), hashes=("cd" * 32, None))
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines() if line[:1] == "|"]
        cells = {name: both for name, *both in rows}
        assert cells["device"] == ["not known", "sdaa, a card"]
        assert cells["precision"] == ["not known", "fp32"]
        assert cells["software"] == ["not known", "torch 2.13.0, onedl-mmengine 0.10.12"]
        assert cells["initial state"] == ["not known", "ab" * 8]
        assert cells["SHA-256"] == ["cd" * 32, "not known"]
        assert "Judged by emacheck 1.2.3" in shown

    def test_of_a_run_that_died_are_told_as_such(self):
        shown = a_card(a_verdict(a_record("r", FALLING), a_record("c", FALLING[:12], complete=False)))
        assert "12, from 1 to 12, **ended before its time**" in shown
        assert "Compared: 12 iterations in both, 88 only in the reference; " in shown


@settings(max_examples=40)
@given(ANYTHING)
def test_foreign_text_is_shown_and_never_obeyed(foreign):
    findings = [a_finding(message=foreign, metric=f"{foreign}~", unit=foreign, limited_by=(foreign,))]
    verdict = a_verdict_with(*findings, name=foreign, metric=f"{foreign}~")
    known = {"device": {"type": foreign}, "versions": {"torch": foreign}, "precision": foreign}
    record = replace(verdict.comparison.reference, provenance=known)
    verdict = replace(verdict, comparison=replace(verdict.comparison, candidate=record))

    def seen(text):
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(a_card(text))
        inline = [child.type for token in tokens for child in token.children or () if child.type != "text_special"]
        return [token.type for token in tokens], {each for each in inline if each not in ("text", "softbreak")}

    blocks, inline = seen(verdict)
    assert inline <= {"strong_open", "strong_close", "html_inline"}
    assert blocks.count("heading_open") == blocks.count("table_open") == blocks.count("fence") == 1
    assert blocks.count("bullet_list_open") == 1
    assert not {"html_block", "blockquote_open", "ordered_list_open", "code_block", "hr"} & set(blocks)


def test_nobody_is_called_by_a_name_in_a_log():
    shown = a_card(
        a_verdict(a_record("@someone/x#12.log", FALLING), a_record("c", FALLING)), command="emacheck compare"
    )
    assert "@someone" not in shown
    assert "#12" not in shown


def test_the_environment_may_say_nothing():
    assert "Judged by emacheck (version unknown)" in card(VERDICTS["pass"], command="", environment=ENVIRONMENT)


def test_the_one_in_the_docs_is_what_is_written():
    page = (Path(__file__).parents[1] / "docs" / "card.md").read_text(encoding="utf-8")
    verdict = a_verdict(a_record("cuda.log", REFERENCE), a_record("sdaa.log", LOW))
    assert f"````markdown\n{a_card(verdict, environment={'emacheck': '0.1.0'})}````\n" in page
