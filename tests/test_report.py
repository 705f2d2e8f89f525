"""The reports' numbers and words: the golden files, JSON and text."""

import math
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from verdicts_to_show import (
    ANYTHING,
    COMMAND,
    ENVIRONMENT,
    NUMBERS,
    VERDICTS,
    a_finding,
    a_note,
    a_record,
    a_verdict,
    a_verdict_with,
    apart_from_style,
    held_to_golden,
    strict,
)

from emacheck import Curve, Record
from emacheck.judge import Outcome, Verdict, decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.figures import number
from emacheck.printable import printable
from emacheck.report.card import card
from emacheck.report.document import document
from emacheck.report.html.page import html
from emacheck.report.junit import junit
from emacheck.report.markdown import markdown
from emacheck.report.text import text
from emacheck.report.wording import divergence, headline, needs
from emacheck.strict_json import to_json


class TestGolden:
    """Three fixed verdicts in six forms, as files to be read in review."""

    FORMS = {  # noqa: RUF012
        "txt": lambda verdict: text(verdict, command=COMMAND, colour=False) + "\n",
        "json": lambda verdict: to_json(document(verdict, command=COMMAND, environment=ENVIRONMENT)),
        "md": lambda verdict: markdown(verdict, command=COMMAND, environment=ENVIRONMENT, plot="report.png"),
        "card.md": lambda verdict: card(verdict, command=COMMAND, environment={"emacheck": "0.1.0"}),
        "xml": lambda verdict: junit(verdict, command=COMMAND),
        "html": lambda verdict: apart_from_style(html(verdict, command=COMMAND, environment=ENVIRONMENT)),
    }

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", VERDICTS)
    def test_is_as_recorded(self, name, form):
        held_to_golden(f"report-{name}.{form}", self.FORMS[form](VERDICTS[name]))

    def test_the_three_outcomes_are_covered(self):
        assert {str(verdict.outcome) for verdict in VERDICTS.values()} == {"PASS", "FAIL", "INCONCLUSIVE"}


class TestPrintable:
    @given(st.text(), st.booleans())
    def test_never_lets_a_control_character_through(self, foreign, newlines):
        shown = printable(foreign, newlines=newlines)
        if newlines:
            shown = shown.replace("\n", "")
        assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}

    @given(st.text(), st.integers(5, 50))
    def test_is_never_longer_than_asked(self, foreign, length):
        assert len(printable(foreign, length=length)) <= length

    def test_leaves_ordinary_text_of_any_language_alone(self):
        assert printable("decode.loss_ce α 损失 é") == "decode.loss_ce α 损失 é"

    @pytest.mark.parametrize("hostile", ["\x1b", "\x9b", "\x7f", "\u202e", "\u2066", "\u200b", "\r", "\ud800"])
    def test_escapes(self, hostile):
        assert printable(f"a{hostile}b").startswith("a\\")

    def test_keeps_both_ends_of_a_long_path(self):
        shown = printable("/data/" + "x" * 500 + "/sdaa.log")
        assert shown.startswith("/data/")
        assert shown.endswith("/sdaa.log")


def test_a_verdict_that_is_no_pass_says_what_it_is_that_is_identical():
    def run(gradients):
        values = {"loss": np.arange(40.0, 20.0, -1.0), "grad_norm": np.linspace(3.0, 2.0, 20) * gradients}
        curves = {name: Curve(name=name, iterations=range(1, 21), values=each) for name, each in values.items()}
        return Record(name="", format="", curves=curves)

    assert headline(decide(compare(run(1.0), run(3.0)))).startswith("FAIL first_iterations[grad_norm]")
    assert headline(decide(compare(run(1.0), run(3.0)))).endswith(" at iteration 1, loss bit-identical")
    assert headline(decide(compare(run(1.0), run(1.0)))).endswith("0 (limit 0), bit-identical")


class TestNumbers:
    @given(st.floats(1e-12, 1e12))
    def test_what_is_needed_is_enough(self, value):
        assert float(needs(a_finding(would_pass_at=value))) >= value

    @given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
    def test_observed_is_shown_on_its_own_side_of_the_limit(self, observed, limit):
        shown = headline(a_verdict_with(a_finding(observed=observed, limit=limit, outcome=Outcome.FAIL)))
        left, right = re.fullmatch(
            r"FAIL bias (\S+) \(limit (\S+)\) at iteration 7, loss bit-identical", shown
        ).groups()
        assert (float(left) <= float(right)) == (observed <= limit)

    def test_counts_are_not_rounded(self):
        assert number(123457.0) == "123457"


class TestDocument:
    @given(st.lists(NUMBERS, max_size=5), NUMBERS, ANYTHING)
    def test_is_strict_json_whatever_the_numbers(self, values, observed, foreign):
        record = a_record(foreign, values, oddities=(a_note(foreign),))
        verdict = Verdict(comparison=compare(record, record), findings=(a_finding(observed=observed),))
        made = document(verdict, command=foreign, environment={"value": values, foreign: observed})
        assert strict(to_json(made)) == made

    def test_spells_what_json_cannot_write(self):
        verdict = a_verdict_with(*(a_finding(observed=value) for value in (math.nan, math.inf, -math.inf)))
        made = document(verdict, command="", environment={})
        assert [finding["observed"] for finding in made["findings"]] == ["NaN", "Infinity", "-Infinity"]

    def test_is_ascii_so_that_no_terminal_obeys_it(self):
        shown = to_json({"name": "\x1b[31m \x7f \u202e \x9b"})
        assert shown.isascii()
        assert not set(map(ord, shown)) & ({*range(32), 127} - {10})
        assert strict(shown) == {"name": "\x1b[31m \x7f \u202e \x9b"}

    def test_takes_numbers_of_numpy(self):
        made = document(
            VERDICTS["pass"], command="", environment={"i": np.int64(3), "f": np.float32(0.5), "p": Path("a")}
        )
        assert made["environment"] == {"i": 3, "f": 0.5, "p": "a"}

    def test_a_missing_metric_has_no_iterations(self):
        verdict = a_verdict(a_record("cpu", [4.0]), a_record("sdaa", [4.0], metric="decode.loss_ce"))
        side = document(verdict, command="", environment={})["candidate"]
        assert (side["records"], side["iterations"], side["metrics"]) == (0, None, ["decode.loss_ce"])

    def test_the_divergence_is_held_against_the_limit_in_use(self):
        reference, candidate = a_record("r", [4.0] * 20), a_record("c", [4.0] * 10 + [4.1] * 10)
        loose = a_verdict(reference, candidate)
        tight = a_verdict(
            reference, candidate, make_rules(["mean_relative_error"], {"mean_relative_error": {"limit": 0.01}})
        )
        assert divergence(loose).over_limit_at is None
        assert divergence(tight).over_limit_at == 11
        assert divergence(loose).unequal_at == divergence(tight).unequal_at == 11


class TestText:
    @pytest.mark.parametrize("name", VERDICTS)
    def test_ends_with_one_line_that_says_it_all(self, name):
        long = COMMAND + " --limit mean_relative_error=0.05" * 10
        last = text(VERDICTS[name], command=long, colour=False, width=40).splitlines()[-1]
        assert last == f"{headline(VERDICTS[name])} | {long}"
        assert last.split()[0] == str(VERDICTS[name].outcome)

    @pytest.mark.parametrize("name", VERDICTS)
    @pytest.mark.parametrize("width", [60, 80, 120])
    def test_keeps_to_its_width(self, name, width):
        verdict = VERDICTS[name]
        verbatim = [line for f in verdict.findings if f.rule == "modelzoo" for line in f.message.splitlines()]
        lines = text(verdict, command=COMMAND, colour=False, width=width).splitlines()[:-1]
        assert [line for line in lines if len(line) > width and line not in verbatim] == []

    def test_colour_changes_no_word(self):
        coloured = text(VERDICTS["fail"], command=COMMAND, colour=True)
        assert "\x1b[" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == text(VERDICTS["fail"], command=COMMAND, colour=False)

    @given(ANYTHING)
    def test_foreign_text_cannot_control_the_terminal(self, foreign):
        verdict = a_verdict_with(a_finding(message=foreign, metric=foreign), name=foreign, metric=foreign)
        shown = text(verdict, command=foreign, colour=False)
        assert all(c.isprintable() or c == "\n" for c in shown)
        assert shown.splitlines()[-1].startswith("FAIL bias")

    def test_lines_of_the_model_zoo_stand_as_they_are(self):
        verdict = VERDICTS["fail"]
        message = next(finding.message for finding in verdict.findings if finding.rule == "modelzoo")
        assert f"\n{message}\n" in text(verdict, command=COMMAND, colour=False, width=40)

    def test_the_bias_has_a_sign(self):
        verdict = a_verdict(a_record("r", [4.0] * 20), a_record("c", [4.4] * 20), make_rules(["bias"]))
        assert "FAIL bias +0.1 (limit 0.01)" in text(verdict, command="", colour=False)

    def test_metrics_are_named_where_there_is_more_than_one(self):
        verdict = a_verdict_with(a_finding(), a_finding(metric="decode.loss_ce"))
        assert "bias[decode.loss_ce]" in text(verdict, command="", colour=False)

    def test_says_how_equal_equal_curves_are(self):
        full, cut = a_record("r", [4.0] * 20), a_record("r", [4.0] * 20, quantum=1e-4)
        assert headline(a_verdict(full, full)).endswith(", loss bit-identical")
        assert headline(a_verdict(cut, full)).endswith(", loss identical in every printed digit")

    @pytest.mark.parametrize(
        ("common", "held", "last", "sentence"),
        [
            (12, 40, ", loss bit-identical in the 12 common iterations of 40", "; of the other 28 nothing is known."),
            (1, 2, ", loss bit-identical in the one common iteration of 2", "; of the other one nothing is known."),
            (20, 20, "PASS finite 0 (limit 0), bit-identical", " in all 20 common iterations."),
            (1, 1, ", loss bit-identical", " in the one common iteration."),
        ],
    )
    def test_of_a_run_that_died_says_of_how_many_iterations_it_is_equal(self, common, held, last, sentence):
        falling = [4 - 0.01 * at for at in range(held)]
        verdict = a_verdict(a_record("r", falling), a_record("c", falling[:common]))
        assert headline(verdict).endswith(last)
        shown = text(verdict, command="", colour=False, width=200)
        assert re.search(rf"^loss is bit-identical.*{re.escape(sentence)}$", shown, flags=re.MULTILINE)

    def test_where_metrics_are_equal_the_one_that_ends_first_says_of_how_many_iterations(self):
        falling = [4 - 0.01 * at for at in range(20)]
        curves = {
            name: {"loss": Curve(name="loss", iterations=range(20), values=falling)}
            | {"lr": Curve(name="lr", iterations=range(end), values=falling[:end])}
            for name, end in (("r", 20), ("c", 15))
        }
        sides = [Record(name=name, format="example", curves=each) for name, each in curves.items()]
        assert headline(a_verdict(*sides)).endswith(", loss, lr bit-identical in the 15 common iterations of 20")

    def test_an_accepted_finding_over_its_limit_is_explained_and_not_named_as_decisive(self):
        falling = [4 - 0.01 * at for at in range(20)]
        verdict = a_verdict(a_record("r", falling), a_record("c", [value + 0.01 for value in falling]))
        assert verdict.outcome is Outcome.PASS
        assert not headline(verdict).startswith("PASS mean_absolute_error")
        assert "accepted because mean_relative_error passes" in " ".join(
            text(verdict, command="", colour=False).split()
        )

    def test_no_findings_are_inconclusive(self):
        last = text(a_verdict_with(), command="emacheck", colour=False).splitlines()[-1]
        assert last == "INCONCLUSIVE: no rule was applied | emacheck"

    def test_many_oddities_are_counted(self):
        record = a_record("r", [4.0] * 20, oddities=tuple(a_note(f"oddity {i}") for i in range(30)))
        assert "and 22 more oddities" in text(a_verdict(record, record), command="", colour=False)

    def test_is_imported_without_anything_heavy(self):
        code = "import sys, emacheck.report.text; print(*sys.modules)"
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert not {"rich", "click", "pandas", "matplotlib", "torch"} & set(loaded)


class TestLeftOut:
    """Rules that are named leave out others, which may speak against the records."""

    def shown(self, *rules):
        full = a_record("cpu", np.linspace(4, 1, 20))
        died = a_record("sdaa", np.linspace(4, 1, 20)[:12])
        return decide(compare(full, died), make_rules(rules))

    def test_what_the_named_rules_leave_out_is_said_in_every_form_and_decides_nothing(self):
        verdict = self.shown("mean_relative_error")
        assert verdict.outcome is Outcome.PASS
        assert headline(verdict).endswith(", although coverage would be FAIL")
        said = "Left out by the choice of rules: coverage would be FAIL: 12 iterations in both; the candidate lacks"
        assert said in text(verdict, command=COMMAND, colour=False, width=500)
        assert said in markdown(verdict, command=COMMAND, environment=ENVIRONMENT, plot=None)
        (left_out,) = document(verdict, command=COMMAND, environment=ENVIRONMENT)["left_out"]
        assert (left_out["rule"], left_out["outcome"]) == ("coverage", "FAIL")

    def test_nothing_is_said_where_the_rules_are_there(self):
        verdict = self.shown("finite", "integrity", "coverage", "mean_relative_error")
        assert verdict.left_out == ()
        assert "would be" not in text(verdict, command=COMMAND, colour=False)
