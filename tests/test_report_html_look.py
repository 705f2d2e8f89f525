"""The page for a browser is fit to be read: headings, contrast, and what a real browser says of it."""

import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from itertools import pairwise

import numpy as np
import pytest
from pages_to_show import PAGES, Seen, page
from verdicts_to_show import a_record, a_verdict

from emacheck.judge import Outcome
from emacheck.report.html.page import html


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
                assert set(attributes.get(each, "").split()) <= set(ids)
        assert all(link["href"][1:] in ids for link in seen.all("a"))

    @PAGES
    def test_tables_have_captions_and_headers_a_scope(self, name):
        seen = Seen(page(name))
        assert len(seen.all("caption")) == len(seen.all("table"))
        assert all(cell.get("scope") in ("col", "row") for cell in seen.all("th"))

    @PAGES
    def test_no_two_drawings_have_the_same_name(self, name):
        named = [drawn["aria-labelledby"] for drawn in Seen(page(name)).all("svg") if "aria-labelledby" in drawn]
        assert len(named) > 1
        assert len(set(named)) == len(named)

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


def blended(one, other, share):
    """Return what a colour that is not opaque looks like upon another."""
    parts = (round(share * int(one[at : at + 2], 16) + (1 - share) * int(other[at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in parts)


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
    faint = float(re.search(r"path\.raw,[^}]*opacity: ([\d.]+)", Seen(page("pass")).style)[1])
    for side in ("reference", "candidate"):
        colours[f"raw {side}"] = blended(colours[side], colours["paper"], faint)
        drawn.append((f"raw {side}", "paper"))
    assert [pair for pair in text if contrast(*(colours[each] for each in pair)) < 4.5] == []
    assert [pair for pair in drawn if contrast(*(colours[each] for each in pair)) < 3] == []


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
            const boxes = [...document.querySelectorAll("svg")].map(svg => [...svg.querySelectorAll("text")]
                .map(text => text.getBoundingClientRect()).filter(box => box.width));
            const cut = box => box.left < 0 || box.right > innerWidth;
            const lie = (one, other) => one !== other && one.left < other.right && other.left < one.right
                && one.top < other.bottom - 3 && other.top < one.bottom - 3;
            boxes.forEach(some => {
                if (some.some(cut)) found.push("cut");
                if (some.some(one => some.some(other => lie(one, other)))) found.push("overlapping");
            });
            parent.document.body.id = [innerWidth, ...found].join(" ")
        </script></body>"""
        falling = [4.0 - i / 100 for i in range(60)]
        same = a_record("r", falling, first=10**9, quantum=0.01)
        spread = a_verdict(a_record("r", [v * 1e-30 for v in falling]), a_record("c", [v * 2e-25 for v in falling]))
        more = (html(verdict, command="", environment={}) for verdict in (a_verdict(same, same), spread))
        for shown in (page("audited"), page("inconclusive"), wide, *more):
            unguarded = re.sub(r"<meta http-equiv[^>]*>", "", shown).replace("</body>", measure)
            framed = f'<body><iframe width="{width}" height="900" srcdoc="{escape(unguarded)}"></iframe></body>'
            document, _ = self.opened(tmp_path, framed)  # no window of a browser is narrower than 500 pixels
            seen_at, *scrolled = re.search(r'<body id="([^"]*)"', document)[1].split()
            assert int(seen_at) == width
            assert set(scrolled) <= ({"levels", "modules", "operators", "numbers"} if width < 1070 else set())
