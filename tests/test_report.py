"""The reports: what they say, that they say it safely, and that machines can read them."""

import json
import math
import os
import re
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from emacheck.curve import Curve
from emacheck.errors import OutputError
from emacheck.judge import Finding, Outcome, Verdict, decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.oddity import OddityKind, oddity
from emacheck.record import Record
from emacheck.report.document import document, to_json
from emacheck.report.github import annotations
from emacheck.report.junit import junit
from emacheck.report.markdown import markdown
from emacheck.report.markdown_text import escaped
from emacheck.report.plot import draw, moving_mean
from emacheck.report.printable import printable
from emacheck.report.text import text
from emacheck.report.wording import divergence, headline, needs, number
from emacheck.report.write import write_atomically

GOLDEN = Path(__file__).parent / "golden"
COMMAND = "emacheck compare cuda.log sdaa.log"
ENVIRONMENT = {"python": "3.11.7", "versions": {"numpy": "2.4.6"}}
ANYTHING = st.text(max_size=60) | st.sampled_from(
    ["|", "``` | ```", "a\nb", "<img src=x>", "[x](http://x)", "\x1b[31m", "\u202eabc", "$x^2$", "\ud800", "\\|", "-->"]
)
unhurried = settings(deadline=None)  # a busy machine is no defect
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


def a_record(name, values, first=1, metric="loss", quantum=0.0, **more):
    iterations = range(first, first + len(values))
    loss = Curve(name=metric, iterations=list(iterations), values=list(values), quantum=quantum)
    return Record(name=name, format="example", curves={metric: loss}, **more)


def a_note(message):
    return oddity(OddityKind.OTHER, message)


def a_verdict(reference, candidate, rules=None):
    return decide(compare(reference, candidate, metrics=list(reference.curves)), rules)


def a_finding(**changed):
    given = {
        "rule": "bias",
        "outcome": Outcome.FAIL,
        "observed": 0.5,
        "limit": 0.01,
        "unit": "of the reference, signed",
        "iteration": 7,
        "message": "too high",
        "would_pass_at": 0.5,
    }
    return Finding(**(given | changed))


def a_verdict_with(*findings, name="cpu", metric="loss"):
    record = a_record(name, [4.0, 3.0], metric=metric)
    return Verdict(comparison=compare(record, record, metrics=[metric]), findings=findings)


# Powers of two and small multiples of them: sums are exact in any order, so the golden files hold on every machine.
REFERENCE = [4.0 - i / 64 for i in range(100)]
LOW = [v * (1 - min(i, 25) / 64) for i, v in enumerate(REFERENCE)]
VERDICTS = {
    "pass": a_verdict(
        a_record("cpu", REFERENCE, initial_state="a", batches=("b",) * 100, provenance={"seed": 0, "device": "cpu"}),
        a_record(
            "runs/sdaa",
            [v * (1 + (2.0 ** (i // 10 - 24) if i > 3 else 0)) for i, v in enumerate(REFERENCE)],
            initial_state="a",
            batches=("b",) * 100,
            provenance={"seed": 0, "device": "sdaa", "versions": {"torch": "2.4.0"}, "nested": {"left": "out"}},
        ),
    ),
    "fail": a_verdict(
        a_record("cuda.log", REFERENCE),
        a_record("sdaa|`.log", LOW, oddities=(a_note("a <tag>"),)),
        make_rules(["finite", "coverage", "mean_relative_error", "bias", "modelzoo"]),
    ),
    "inconclusive": a_verdict(
        a_record("cuda.log", [*REFERENCE[:40], math.nan, math.inf, *REFERENCE[42:]]),
        a_record("sdaa.log", REFERENCE, complete=False),
    ),
}


def strict(shown):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(shown, parse_constant=refuse)


class TestGolden:
    """Three fixed verdicts in four forms, as files to be read in review."""

    FORMS = {  # noqa: RUF012
        "txt": lambda verdict: text(verdict, command=COMMAND, colour=False) + "\n",
        "json": lambda verdict: to_json(document(verdict, command=COMMAND, environment=ENVIRONMENT)),
        "md": lambda verdict: markdown(verdict, command=COMMAND, environment=ENVIRONMENT, plot="report.png"),
        "xml": lambda verdict: junit(verdict, command=COMMAND),
    }

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", VERDICTS)
    def test_is_as_recorded(self, name, form):
        path = GOLDEN / f"report-{name}.{form}"
        shown = self.FORMS[form](VERDICTS[name])
        if os.environ.get("EMACHECK_REWRITE_GOLDEN") == "1":
            path.parent.mkdir(exist_ok=True)
            path.write_text(shown, encoding="utf-8")
            pytest.fail(f"{path.name} was rewritten: look at the difference, then run without EMACHECK_REWRITE_GOLDEN")
        assert shown == path.read_text(encoding="utf-8"), "intended? rewrite with EMACHECK_REWRITE_GOLDEN=1"

    def test_the_three_outcomes_are_covered(self):
        assert {str(verdict.outcome) for verdict in VERDICTS.values()} == {"PASS", "FAIL", "INCONCLUSIVE"}


class TestPrintable:
    @unhurried
    @given(st.text(), st.booleans())
    def test_never_lets_a_control_character_through(self, foreign, newlines):
        shown = printable(foreign, newlines=newlines)
        if newlines:
            shown = shown.replace("\n", "")
        assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}

    @unhurried
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


class TestNumbers:
    @unhurried
    @given(st.floats(1e-12, 1e12))
    def test_what_is_needed_is_enough(self, value):
        assert float(needs(a_finding(would_pass_at=value))) >= value

    @unhurried
    @given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
    def test_observed_is_shown_on_its_own_side_of_the_limit(self, observed, limit):
        shown = headline(a_verdict_with(a_finding(observed=observed, limit=limit, outcome=Outcome.FAIL)))
        left, right = re.fullmatch(r"FAIL bias (\S+) \(limit (\S+)\) at iteration 7, bit-identical", shown).groups()
        assert (float(left) <= float(right)) == (observed <= limit)

    def test_counts_are_not_rounded(self):
        assert number(123457.0) == "123457"


class TestDocument:
    @unhurried
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

    def test_every_key_is_documented(self):
        described = (Path(__file__).parents[1] / "docs" / "report-format.md").read_text(encoding="utf-8")

        def keys(made):
            for key, value in made.items():
                yield key
                if key != "environment":
                    for inner in value if isinstance(value, list) else [value]:
                        yield from keys(inner) if isinstance(inner, dict) else ()

        made = document(VERDICTS["fail"], command=COMMAND, environment=ENVIRONMENT)
        assert [key for key in keys(made) if f"`{key}`" not in described] == []


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

    @unhurried
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
        assert headline(a_verdict(full, full)).endswith(", bit-identical")
        assert headline(a_verdict(cut, full)).endswith(", identical in every printed digit")

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

    @unhurried
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

    @unhurried
    @given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=40))
    def test_foreign_text_is_shown_as_it_is(self, foreign):
        tokens = MarkdownIt("commonmark", {"html": True}).parse(f"x {escaped(foreign)}")
        (inline,) = [token for token in tokens if token.type == "inline"]
        assert {child.type for child in inline.children} <= {"text", "text_special"}
        assert "".join(child.content for child in inline.children) == f"x {foreign}"

    @pytest.mark.parametrize("address", ["https://example.org", "www.example.org"])
    def test_addresses_do_not_become_links(self, address):
        assert address not in escaped(address)

    def test_the_picture_is_embedded_under_a_safe_name(self):
        shown = markdown(VERDICTS["pass"], command="", environment={}, plot="a (b).png")
        assert "](a%20%28b%29.png)" in shown

    @unhurried
    @given(st.text(alphabet="`ab \n", max_size=20))
    def test_the_command_cannot_leave_its_block(self, command):
        shown = markdown(VERDICTS["pass"], command=command, environment={}, plot=None)
        last = MarkdownIt("commonmark").enable("table").parse(shown)[-1]
        assert (last.type, last.content) == ("fence", f"{printable(command)}\n")


class TestJUnit:
    @unhurried
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

    def test_a_pass_is_one_notice(self):
        assert annotations(VERDICTS["pass"]) == [
            f"::notice title=emacheck::{headline(VERDICTS['pass'])} (rests on curves alone, without an audit)"
        ]

    def test_no_findings_are_a_warning(self):
        assert annotations(a_verdict_with()) == ["::warning title=emacheck::INCONCLUSIVE: no rule was applied"]

    @unhurried
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


class TestPlot:
    EXTREME = NUMBERS | st.sampled_from([0.0, -0.0, 5e-324, 1e-300, 1e29, 1e31, 1.7e308, -1.7e308, 1.0])

    @staticmethod
    def drawn(reference, candidate, **more):
        content = draw(a_verdict(a_record("r", reference), a_record("c", candidate, **more)))
        assert content.startswith(b"\x89PNG")
        return content

    @settings(deadline=None, max_examples=30)
    @given(st.lists(EXTREME, max_size=4), st.lists(EXTREME, max_size=4), st.integers(1, 3))
    def test_draws_whatever_the_values(self, reference, candidate, first):
        self.drawn(reference, candidate, first=first)

    @pytest.mark.parametrize(
        "values",
        [
            [],
            [1.0],
            [1.0, 2.0],
            [0.0] * 50,
            [-1.0] * 50,
            [1e300] * 50,
            [math.nan] * 50,
            [math.inf, 1.0] * 25,
            [5e-324] * 50,
            [1e-5, 1e5] * 30,
            list(range(50)),
        ],
    )
    def test_draws_each_against_each_other_length(self, values):
        self.drawn(values, values)
        self.drawn(values, [2.0] * 50)
        self.drawn([2.0] * 50, values)

    @pytest.mark.parametrize("limit", [0.0, 1e-40, 1e40, math.inf])
    def test_draws_with_a_limit_that_has_no_place_on_the_axis(self, limit):
        rules = make_rules(["mean_relative_error"], {"mean_relative_error": {"limit": limit}})
        assert draw(a_verdict(a_record("r", [1.0, 2.0]), a_record("c", [1.0, 2.1]), rules))

    @pytest.mark.parametrize("name", ["$a_b$", "$", r"\frac{", "损失", "\x1b[31m", "x" * 300, "{}%"])
    def test_names_are_text_and_not_formulas(self, name, recwarn):
        record = a_record(name, [1.0, 2.0], metric=name)
        assert draw(a_verdict(record, a_record(name, [1.0, 2.5], metric=name)))
        assert [str(warning.message) for warning in recwarn] == []

    def test_repeats_to_the_byte_and_leaves_no_trace_in_the_configuration(self):
        import matplotlib

        with matplotlib.rc_context({"lines.linewidth": 9.0, "font.size": 3.0}):
            first = draw(VERDICTS["fail"])
            assert matplotlib.rcParams["lines.linewidth"] == 9.0
        assert draw(VERDICTS["fail"]) == first
        assert b"Software" not in first
        assert (int.from_bytes(first[16:20], "big"), int.from_bytes(first[20:24], "big")) == (1200, 800)

    def test_never_imports_pyplot(self):
        code = (
            "import sys, emacheck.report.plot as plot; assert 'matplotlib' not in sys.modules\n"
            "from emacheck import Curve, Record, compare, decide\n"
            "record = Record(name='', format='', curves={'loss': Curve(name='loss', iterations=[1], values=[1.0])})\n"
            "plot.draw(decide(compare(record, record))); assert 'matplotlib.pyplot' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    @unhurried
    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.sampled_from([1, 3, 5, 21, 101]))
    def test_the_moving_mean_is_centred(self, values, window):
        half = window // 2
        expected = [np.mean(values[max(i - half, 0) : i + half + 1]) for i in range(len(values))]
        np.testing.assert_allclose(moving_mean(np.array(values), window), expected, rtol=1e-9, atol=1e-6)


class TestWrite:
    def test_writes_text_and_bytes(self, tmp_path):
        write_atomically(tmp_path / "a", "é\n")
        write_atomically(tmp_path / "b", b"\x00")
        assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"
        assert (tmp_path / "b").read_bytes() == b"\x00"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]

    def test_replaces_a_file_and_follows_a_link(self, tmp_path):
        (tmp_path / "real").write_text("old")
        (tmp_path / "link").symlink_to("real")
        write_atomically(tmp_path / "link", "new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_text() == "new"

    def test_a_relative_name_is_enough(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write_atomically(Path("a"), "x")
        assert (tmp_path / "a").read_text() == "x"

    def test_a_missing_directory_is_named(self, tmp_path):
        with pytest.raises(OutputError, match=r"(?s)found: +nothing at .*missing.*mkdir -p"):
            write_atomically(tmp_path / "missing" / "a", "x")

    def test_a_file_is_no_directory(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(OutputError, match=r"found: +a file"):
            write_atomically(tmp_path / "file" / "a", "x")

    def test_a_directory_is_not_replaced(self, tmp_path):
        with pytest.raises(OutputError, match="a directory"):
            write_atomically(tmp_path, "x")

    def test_a_device_or_pipe_is_not_replaced(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OutputError, match="device, pipe or socket"):
            write_atomically(tmp_path / "pipe", "x")
        assert (tmp_path / "pipe").is_fifo()

    def test_nothing_is_left_when_writing_fails(self, tmp_path, monkeypatch):
        def full(self, target):
            raise OSError(28, "No space left on device")

        (tmp_path / "a").write_text("old")
        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(OutputError, match="No space left on device"):
            write_atomically(tmp_path / "a", "new")
        assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
