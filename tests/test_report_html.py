"""The page for a browser: what is on it, that nothing in it comes from data, and that it is fit to be read."""

import base64
import hashlib
import math
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from html import escape
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
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
    an_audit,
    held_to_golden,
    unhurried,
)

from emacheck.audit.findings.result import ModuleFinding
from emacheck.cli.judging import with_audit
from emacheck.curve import Curve
from emacheck.judge import Outcome, Verdict, make_rules
from emacheck.judge.comparison import compare
from emacheck.printable import printable
from emacheck.record import Record
from emacheck.report.html.audited import audit_part
from emacheck.report.html.drawing import COLUMNS, course
from emacheck.report.html.page import audit_html, html
from emacheck.report.wording import evidence_sentence, figures, headline, needs

VOID = {"meta", "link", "br"}
INLINE = {"a", "b", "em", "small", "span", "svg"}
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


class Seen(HTMLParser):
    """Every element with its attributes, in order, and the text between them, as a browser takes it apart."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements, self.pieces, self.open = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag not in INLINE:
            self.pieces.append(("", "\n"))

    def handle_data(self, data):
        self.pieces.append((self.open[-1] if self.open else "", data))

    @property
    def text(self):
        """All that a person can read, blanks as one."""
        return " ".join("".join(text for inside, text in self.pieces if inside != "style").split())

    @property
    def style(self):
        """The stylesheet."""
        return "".join(text for inside, text in self.pieces if inside == "style")

    def all(self, tag):
        return [attributes for each, attributes in self.elements if each == tag]


def audited():
    audit = an_audit()
    return {"verdict": with_audit(VERDICTS["pass"], audit), "audit": audit}


@cache
def page(name):
    if name == "audited":
        given = audited()
        return html(given["verdict"], audit=given["audit"], command=COMMAND, environment=ENVIRONMENT)
    if name == "audit":
        return audit_html(an_audit(), command="emacheck audit --device sdaa")
    return html(VERDICTS[name], command=COMMAND, environment=ENVIRONMENT)


PAGES = pytest.mark.parametrize("name", [*VERDICTS, "audited", "audit"])


@pytest.mark.parametrize("name", ["audited", "audit"])
def test_is_as_recorded(name):
    held_to_golden(f"report-{name}.html", page(name))


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
        findings = [a_finding(rule=metric, message=lines, metric=metric, unit=text, limited_by=(lines,))]
        findings.append(a_finding(outcome=Outcome.PASS, observed=0.0, message=lines, metric=metric, unit=text))
        verdict = with_audit(
            Verdict(comparison=compare(reference, candidate, metrics=[metric]), findings=tuple(findings)), audit
        )
        return Seen(html(verdict, command=text, environment={metric: text}, audit=audit)), Seen(
            audit_html(audit, command=text)
        )

    @settings(unhurried, max_examples=30)
    @given(HOSTILE)
    def test_no_element_and_no_attribute_comes_from_data(self, foreign):
        plain = self.everything("x", "\n".join("x" * (foreign.count("\n") + 1)))
        for shown, expected in zip(self.everything(foreign, foreign), plain, strict=True):
            assert shown.elements == expected.elements
            assert " ".join(printable(f"{foreign}~").split()) in shown.text

    @unhurried
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


class TestReadable:
    @PAGES
    def test_has_one_heading_of_the_page_and_no_level_is_left_out(self, name):
        levels = [int(tag[1]) for tag, _ in Seen(page(name)).elements if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))

    @PAGES
    def test_has_landmarks_a_language_and_references_that_lead_somewhere(self, name):
        seen = Seen(page(name))
        assert seen.all("html") == [{"lang": "en"}]
        assert all(len(seen.all(landmark)) == 1 for landmark in ("header", "main", "nav", "footer"))
        ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        for _, attributes in seen.elements:
            for each in ("aria-labelledby", "aria-describedby"):
                assert attributes.get(each, ids[0]) in ids
        assert all(link["href"][1:] in ids for link in seen.all("a"))

    @PAGES
    def test_tables_have_captions_and_headers_a_scope(self, name):
        seen = Seen(page(name))
        assert len(seen.all("caption")) == len(seen.all("table"))
        assert all(cell.get("scope") in ("col", "row") for cell in seen.all("th"))

    @PAGES
    def test_drawings_have_a_name_or_are_hidden(self, name):
        inner = {"viewBox", "viewbox"}
        for drawn in Seen(page(name)).all("svg"):
            named = drawn.get("role") == "img" and "aria-labelledby" in drawn
            assert named or drawn.get("aria-hidden") == "true" or inner & drawn.keys()

    @PAGES
    def test_every_outcome_has_a_word_and_a_symbol_beside_its_colour(self, name):
        found = re.findall(
            r'<span class="(?:outcome (pass|fail|inconclusive)|big)">(.*?)</span>', page(name), re.DOTALL
        )
        assert found
        for word, shown in found:
            assert '<svg class="icon"' in shown
            assert shown.rpartition("</svg>")[2].strip() in ({word.upper()} if word else {str(o) for o in Outcome})


def palettes():
    """Return the colours of the page by name, in light, dark and on paper."""
    style = Seen(page("pass")).style
    found = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    return dict(zip(("light", "dark", "paper"), found, strict=True))


def contrast(one, other):
    """Return the contrast of two colours: WCAG 2.2, relative luminance and contrast ratio."""

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", ["light", "dark", "paper"])
def test_contrast_is_sufficient(palette):
    colours = palettes()[palette]
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    tints = [f"{outcome}-tint" for outcome in ("pass", "fail", "inconclusive")]
    text = [(ink, ground) for ink in ("ink", "soft", "link") for ground in ("paper", "shade", *tints)]
    text += [
        (outcome, ground) for outcome in ("pass", "fail", "inconclusive") for ground in ("paper", f"{outcome}-tint")
    ]
    drawn = [(line, "paper") for line in ("reference", "candidate", "limit", "unequal", "pale", "fail")]
    assert [pair for pair in text if contrast(*(colours[each] for each in pair)) < 4.5] == []
    assert [pair for pair in drawn if contrast(*(colours[each] for each in pair)) < 3] == []


class TestCurves:
    EXTREME = NUMBERS | st.sampled_from([0.0, -0.0, 5e-324, 1e-300, 1e29, 1e31, 1.7e308, -1.7e308, 1.0])

    @staticmethod
    def paths(reference, candidate, rules=None, **more):
        shown = html(a_verdict(reference, a_record("c", candidate, **more), rules), command="", environment={})
        return [(each.get("class"), each["d"]) for each in Seen(shown).all("path") if each.get("class")], shown

    @settings(unhurried, max_examples=30)
    @given(st.lists(EXTREME, max_size=4), st.lists(EXTREME, max_size=4), st.integers(1, 3))
    def test_are_drawn_whatever_the_values(self, reference, candidate, first):
        paths, shown = self.paths(a_record("r", reference), candidate, first=first)
        assert all(
            re.fullmatch(r"(?:[MLHV]-?\d+(?: -?\d+)?|[hv]\d+|z)*", path) for look, path in paths if look != "cut"
        )
        values = [value for _, attributes in Seen(shown).elements for value in attributes.values() if value]
        assert not [value for value in values if re.search(r"\b(?:nan|inf)\b", value)]

    @pytest.mark.parametrize("first", [1, 2**53, 2**63 - 60])
    @pytest.mark.parametrize("count", [1, 2, 50])
    def test_iterations_of_any_size_are_drawn(self, first, count):
        values = [1.0 + i for i in range(count)]
        _, shown = self.paths(a_record("r", values, first=first), [1.1 * v for v in values], first=first)
        across = [
            each[name] for _, each in Seen(shown).elements for name in ("x", "x1", "cx") if "%" in each.get(name, "")
        ]
        assert all(0 <= float(place.rstrip("%")) <= 100 for place in across)
        labels = re.findall(r'<text(?: class="spare")? x="[^"]*" y="1em">(\d+)</text>', shown)
        assert labels
        assert all(first <= int(label) < first + count for label in labels)

    @pytest.mark.parametrize("limit", [0.0, 1e-40, 1e40, math.inf])
    def test_a_limit_that_has_no_place_on_the_axis_is_said_only(self, limit):
        rules = make_rules(["mean_relative_error"], {"mean_relative_error": {"limit": limit}})
        _, shown = self.paths(a_record("r", [1.0, 2.0]), [1.0, 2.1], rules)
        assert '<line class="limit"' not in shown
        assert " limit " in shown

    def test_a_line_ends_where_iterations_are_missing_or_values_are_not_finite(self):
        gap = Record(
            name="r",
            format="example",
            curves={"loss": Curve(name="loss", iterations=[1, 2, 8, 9], values=[4.0, 3.0, 2.0, 1.0])},
        )
        paths, _ = self.paths(gap, [4.0, math.nan, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0])
        drawn = dict(paths)
        assert drawn["reference"].count("M") == 2
        assert drawn["candidate"].count("M") == 2
        assert drawn["candidate"].startswith("M")
        assert "h1L" not in drawn["candidate"]
        assert drawn["candidate mark"].count("M") == 1

    def test_a_long_run_makes_no_large_page_and_its_one_bad_iteration_is_seen(self):
        rng = np.random.default_rng(0)
        values = 4 + rng.standard_normal(100_000)
        spiked = np.where(np.arange(100_000) == 77_777, 50.0, values * (1 + 1e-3 * rng.standard_normal(100_000)))
        paths, shown = self.paths(a_record("r", values), list(spiked))
        assert len(shown) < 300_000
        raw = dict(paths)["candidate raw"]
        top = min(int(y) for y in re.findall(r"[ML]\d+ (\d+)", raw))
        assert top < 60
        (ring, *_) = [
            each for each in Seen(shown).all("circle") if each["class"] == "ring candidate" and "%" in each["cx"]
        ]
        assert float(ring["cx"].rstrip("%")) == pytest.approx(77.8, abs=1)
        assert float(ring["cy"].rstrip("%")) * 10 == pytest.approx(top, abs=1)
        assert "largest difference: iteration 77778" in shown

    @pytest.mark.parametrize("count", [1, 2, 3999, 4001, 20_000])
    def test_of_many_points_the_outermost_of_each_column_stay(self, count):
        heights, across = np.random.default_rng(count).random(count), np.linspace(0.0, 1.0, count)
        drawn = course(across, heights, np.zeros(count, dtype=bool))
        points = [(int(x), int(y)) for x, y in re.findall(r"[ML](\d+) (\d+)", drawn)]
        assert len(points) <= min(count, 4 * COLUMNS)
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        column = np.minimum((across * COLUMNS).astype(int), COLUMNS - 1)
        drawn_at = set(points)
        for each in np.unique(column):
            at = np.flatnonzero(column == each)
            for kept in (at[0], at[-1], at[heights[at].argmin()], at[heights[at].argmax()]):
                assert (round(2000 * across[kept]), round(1000 * (1 - heights[kept]))) in drawn_at

    def test_a_run_with_a_gap_at_every_other_place_makes_no_large_page_either(self):
        values = np.where(np.arange(40_000) % 2, np.nan, 4.0 + np.arange(40_000) % 7)
        _, shown = self.paths(a_record("r", values), list(np.roll(values, 1)))
        assert len(shown) < 400_000


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium and no google-chrome on this machine")
class TestInABrowser:
    @staticmethod
    def opened(tmp_path, shown):
        """Return the document as the browser has it, and what the browser's console says."""
        (tmp_path / "report.html").write_text(shown, encoding="utf-8")
        command = [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(
                "--enable-logging=stderr",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--dump-dom",
            ),
            (tmp_path / "report.html").as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    @pytest.mark.parametrize("name", ["fail", "audited"])
    def test_nothing_is_blocked_and_nothing_is_complained_about(self, tmp_path, name):
        document, said = self.opened(tmp_path, page(name))
        assert said == []
        assert [tag for tag, _ in Seen(document).elements if tag != "svg"] == [
            tag for tag, _ in Seen(page(name)).elements if tag != "svg"
        ]

    def test_a_stylesheet_that_is_not_ours_would_be_refused_and_said(self, tmp_path):
        _, said = self.opened(tmp_path, page("pass").replace("</style>", "x{}</style>"))
        assert any("Content Security Policy" in line for line in said)

    @pytest.mark.parametrize("width", [360, 760, 1070, 1400])
    def test_nothing_is_wider_than_the_screen(self, tmp_path, width):
        long = a_record(
            "work_dirs/" + "x" * 300, [4.0 - i / 100 for i in range(60)], metric="decode.acc_seg_" + "y" * 300
        )
        wide = html(a_verdict(long, replace(long, name="sdaa.log")), command="emacheck " + "z" * 900, environment={})
        measure = """<script>
            document.querySelectorAll("details").forEach(each => { each.open = true });
            const wider = each => each.scrollWidth > each.clientWidth;
            const all = [document.documentElement, ...document.querySelectorAll(".scroll")];
            const found = all.filter(wider).map(each => each.firstElementChild.className || each.tagName);
            parent.document.body.id = [innerWidth, ...found].join(" ")
        </script></body>"""
        for shown in (page("audited"), page("inconclusive"), wide):
            unguarded = re.sub(r"<meta http-equiv[^>]*>", "", shown).replace("</body>", measure)
            framed = f'<body><iframe width="{width}" height="900" srcdoc="{escape(unguarded)}"></iframe></body>'
            document, _ = self.opened(tmp_path, framed)  # no window of a browser is narrower than 500 pixels
            seen_at, *scrolled = re.search(r'<body id="([^"]*)"', document)[1].split()
            assert int(seen_at) == width
            assert set(scrolled) <= ({"levels", "modules", "operators", "numbers"} if width < 1070 else set())
