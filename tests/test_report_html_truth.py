"""What the drawings of the page show is what the numbers are: coordinates are read back by the ticks beside them."""

import math
import re
from dataclasses import replace
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from verdicts_to_show import a_record, a_verdict, an_audit

from emacheck.audit.findings.result import AuditResult
from emacheck.curve import Curve
from emacheck.judge import Outcome, decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.record import Record
from emacheck.report.html.page import audit_html, html

PANEL = re.compile(r'<svg class="panel".*?(?=<p class="axis|<svg class="ruler")', re.DOTALL)
RULER = re.compile(r'<svg class="ruler".*?</svg>', re.DOTALL)
KEYS = re.compile(r'<ul class="keys".*?</ul>', re.DOTALL)


def share(length):
    return float(length.rstrip("%")) / 100


def parsed(drawn):
    return fromstring(drawn)  # noqa: S314 - our own page


class Shown:
    """One panel, read as a person reads it: by the numbers beside its axes."""

    def __init__(self, panel, ruler):
        self.tree = parsed(panel)
        ticks = [(1 - share(text.get("y")), float(text.text)) for text in self.tree.iter("text") if text.get("dy")]
        steps = np.diff([value for _, value in ticks])
        self.log = len(steps) > 1 and not np.allclose(steps, steps[0], atol=0)
        self.vertical = self._read(ticks, log=self.log)
        self.horizontal = self._read([(share(text.get("x")), float(text.text)) for text in ruler.iter("text")])

    @staticmethod
    def _read(ticks, log=False):
        at, values = (np.array(column) for column in zip(*ticks, strict=True))
        slope, start = np.polyfit(at, np.log10(values) if log else values, 1) if len(at) > 1 else (1.0, values[0])
        return lambda place: 10 ** (start + slope * place) if log else start + slope * place

    def points(self, look):
        """Return iterations and values of all points of a line."""
        paths = [path.get("d") for path in self.tree.iter("path") if path.get("class") == look]
        found = [(int(x), int(y)) for path in paths for x, y in re.findall(r"[ML](-?\d+) (-?\d+)", path)]
        x, y = np.array(found, dtype=np.float64).reshape(-1, 2).T
        return self.horizontal(x / 2000), self.vertical(1 - y / 1000)

    def lines(self, look):
        return [
            self.vertical(1 - share(each.get("y1"))) for each in self.tree.iter("line") if each.get("class") == look
        ]

    def uprights(self, look):
        found = (each for each in self.tree.iter("line") if each.get("class") == f"upright {look}")
        return [self.horizontal(share(each.get("x1"))) for each in found]

    def rings(self):
        found = (each for each in self.tree.iter("circle") if each.get("class").startswith("ring"))
        return [(self.horizontal(share(each.get("cx"))), self.vertical(1 - share(each.get("cy")))) for each in found]


def read(shown, drawing=0):
    """Return the panels of one drawing and its legend."""
    figure = re.findall(r"<figure>.*?</figure>", shown, re.DOTALL)[drawing]
    ruler = parsed(RULER.search(figure)[0])
    keys = " | ".join("".join(item.itertext()).strip() for item in parsed(KEYS.search(figure)[0]))
    return [Shown(panel, ruler) for panel in PANEL.findall(figure)], keys


def a_page(verdict):
    return html(verdict, command="", environment={})


FALLING = np.array([4.0 - i / 16 for i in range(30)])
SHIFT = 1 + 1e-3 * np.cos(np.arange(30))
CURVES = {
    "linear": FALLING,
    "logarithmic": 10.0 ** np.linspace(3, -3, 30),
    "logarithmic, without two powers of ten": np.geomspace(760, 15, 30),
    "negative": FALLING - 3.03,
    "tiny": FALLING * 1e-30,
    "large": FALLING * 1e28,
    "nearly constant": 2.5 + FALLING * 1e-3,
}


class TestCurves:
    @pytest.mark.parametrize("name", CURVES)
    def test_every_point_is_where_its_number_says(self, name):
        reference, candidate = CURVES[name], CURVES[name] * SHIFT
        rules = make_rules(["mean_relative_error"])
        (above, below), _ = read(a_page(a_verdict(a_record("r", reference), a_record("c", candidate), rules)))
        assert above.log is name.startswith("logarithmic")
        span = np.ptp(np.log10(reference) if above.log else reference)
        for look, values in (("reference", reference), ("candidate", candidate)):
            iterations, heights = above.points(look)
            np.testing.assert_allclose(iterations, range(1, 31), atol=0.05)
            if above.log:
                np.testing.assert_allclose(np.log10(heights), np.log10(values), atol=2e-3 * span)
            else:
                least = 0.01 * np.abs(values).max()  # an axis is at least as high, so that its numbers stay short
                np.testing.assert_allclose(heights, values, atol=2e-3 * max(span, least))
        iterations, heights = below.points("difference")
        relative = np.abs((candidate - reference) / reference)
        np.testing.assert_allclose(iterations, range(1, 31), atol=0.05)
        np.testing.assert_allclose(heights, relative, rtol=0.05)
        assert below.lines("limit") == pytest.approx([0.05], rel=0.05)
        (ring,) = below.rings()
        assert ring == (pytest.approx(relative.argmax() + 1, abs=0.05), pytest.approx(relative.max(), rel=0.05))

    def test_what_is_missing_is_no_line_and_a_mark_stands_where_nothing_can_be_drawn(self):
        iterations = np.delete(np.arange(1, 31), [10, 11, 12])
        values = np.where(iterations == 20, math.nan, FALLING[iterations - 1] * SHIFT[iterations - 1])
        candidate = a_record("c", values)
        candidate = replace(candidate, curves={"loss": Curve(name="loss", iterations=iterations, values=values)})
        shown = a_page(a_verdict(a_record("r", FALLING), candidate))
        (above, below), keys = read(shown)
        kept = iterations[iterations != 20]
        for panel, look in ((above, "candidate"), (below, "difference")):
            np.testing.assert_allclose(panel.points(look)[0], kept, atol=0.05)
        assert [round(at) for at in above.points("candidate mark")[0]] == [20]
        assert [round(at) for at in below.points("difference mark")[0]] == [20]
        assert below.uprights("over") == [pytest.approx(20, abs=0.05)]
        assert "candidate NaN or infinite (1)" in keys
        assert "only in the reference (3)" in keys

    def test_of_what_is_not_finite_none_is_the_largest(self):
        broken = FALLING * SHIFT
        broken[[4, 9]] = math.nan, math.inf
        _, keys = read(a_page(a_verdict(a_record("r", FALLING), a_record("c", broken))))
        assert "largest finite difference: iteration 1, 0.001" in keys

    def test_the_largest_difference_is_said_although_its_value_has_no_place(self):
        _, keys = read(a_page(a_verdict(a_record("r", [1e30, 1e30]), a_record("c", [1.1e30, 0.95e30]))))
        assert "largest difference: iteration 1, 0.1" in keys


class TestLimits:
    @pytest.mark.parametrize("rules", [["bias"], ["finite", "equivalence"]])
    def test_no_limit_is_drawn_for_a_rule_that_was_not_applied(self, rules):
        verdict = a_verdict(a_record("r", FALLING), a_record("c", FALLING * 1.2), make_rules(rules))
        (_, below), keys = read(a_page(verdict))
        assert below.lines("limit") == []
        assert "limit" not in keys

    def test_the_limit_of_a_mean_is_called_one(self):
        _, keys = read(a_page(a_verdict(a_record("r", FALLING), a_record("c", FALLING * SHIFT))))
        assert "limit 0.05 of the mean (mean_relative_error)" in keys

    @staticmethod
    def with_repeats(wrong_from, limits=None):
        """Return a verdict and where its candidate is beyond the envelope."""
        rng, growing = np.random.default_rng(0), 1e-7 * 1.4 ** np.arange(30)

        def varied(name):
            noise = FALLING * (1 + growing * rng.standard_normal(30))
            return a_record(name, noise, initial_state="s", batches=("b",) * 30)

        candidate = varied("c")
        values = candidate.curves["loss"].values * np.where(np.arange(1, 31) >= wrong_from, 1.0005, 1.0)
        candidate = replace(candidate, curves={"loss": Curve(name="loss", iterations=range(1, 31), values=values)})
        comparison = compare(
            a_record("r", FALLING, initial_state="s", batches=("b",) * 30),
            candidate,
            repeats=[varied(f"repeat {i}") for i in range(4)],
        )
        return decide(comparison, make_rules(["envelope"], limits or {}))

    @pytest.mark.parametrize("limits", [{}, {"envelope": {"limit": 30.0}}, {"envelope": {"alpha": 0.2}}])
    def test_the_envelope_is_drawn_where_it_is_judged(self, limits):
        verdict = self.with_repeats(5, limits)
        (finding,) = verdict.findings
        (_, below), keys = read(a_page(verdict))
        iterations, allowed = below.points("envelope")
        _, differences = below.points("difference")
        np.testing.assert_allclose(iterations, range(1, 31), atol=0.05)
        excess = differences / allowed
        assert int(excess.argmax()) + 1 == finding.iteration
        assert excess.max() == pytest.approx(finding.observed / finding.limit, rel=0.1)
        assert "what the repeats allow (envelope)" in keys

    def test_an_envelope_that_could_not_be_applied_is_not_drawn(self):
        verdict = self.with_repeats(31)
        lacking = replace(verdict.comparison, repeats=verdict.comparison.repeats[:1])
        shown = a_page(decide(lacking, make_rules(["envelope"], {"envelope": {"limit": 3.0}})))
        assert "envelope)" not in read(shown)[1]


class TestMetrics:
    @staticmethod
    def of_many(first):
        """Return a verdict on many metrics, of which the last is wrong."""
        names = [f"loss_{i}" for i in range(20)]

        def record(name, factor):
            curves = {metric: Curve(name=metric, iterations=range(1, 31), values=FALLING) for metric in names}
            curves["loss_0"] = Curve(name="loss_0", iterations=range(1, 31), values=first)
            curves["loss_19"] = Curve(name="loss_19", iterations=range(1, 31), values=FALLING * factor)
            return Record(name=name, format="example", curves=curves)

        return a_verdict(record("r", 1.0), record("c", 1.5), make_rules(["mean_relative_error"]))

    def test_what_did_not_pass_is_drawn_first_and_the_others_are_counted(self):
        shown = a_page(self.of_many(FALLING))
        captions = re.findall(r"Curves of reference and candidate: (\w+)", shown)
        assert captions == ["loss_19", "loss_0", "loss_1", "loss_2", "loss_3", "loss_4"]
        assert "and 14 more metrics, without drawings" in shown


class TestScatter:
    def test_every_ratio_is_where_its_number_says_and_no_tensor_over_its_limit_is_in_the_benign_area(self):
        (error, *_) = an_audit().errors
        ratios = [0.02, 1.0, 29.0, 31.0, 1e4, 1e7]
        errors = tuple(
            replace(error, depth=depth, error=ratio * error.accepted, level="isolated")
            for depth, ratio in enumerate(ratios)
        )
        (panel,), keys = read(
            audit_html(AuditResult(device="d", precision="fp32", errors=errors, findings=()), command="")
        )
        for look, slice_ in (("dot", slice(0, 3)), ("dot over", slice(3, None))):
            depths, heights = panel.points(look)
            np.testing.assert_allclose(depths, range(6)[slice_], atol=0.02)
            np.testing.assert_allclose(heights, ratios[slice_], rtol=0.05)
        (area,) = [path.get("d") for path in panel.tree.iter("path") if path.get("class") == "benign area"]
        edge = panel.vertical(1 - int(re.search(r"V(\d+)H0z", area)[1]) / 1000)
        assert 29 < edge < 31
        assert "beyond" not in keys

    def test_what_has_no_place_is_said(self):
        (panel, *_), keys = read(audit_html(an_audit(), command=""))
        assert "NaN or beyond 1e+09: 12, at the top" in keys
        assert "below 0.01: 12, at the bottom" in keys
        assert panel.points("dot over")[1].max() == pytest.approx(1e9, rel=0.1)


def test_what_stands_instead_of_a_drawing_is_text_that_a_narrow_screen_wraps():
    same = a_record("r", FALLING, quantum=1e-4)
    said = "identical in every printed digit in all 30 common iterations"
    assert f'<p class="panel note">{said}</p>' in a_page(a_verdict(same, same))


def test_a_number_stands_with_its_unit():
    verdict = a_verdict(a_record("r", FALLING), a_record("c", FALLING * 1.2), make_rules(["bias"]))
    assert verdict.outcome is Outcome.FAIL
    assert "<small>unit of both numbers: of the reference, signed</small></p>" in a_page(verdict)
    assert "<small>unit: of the reference, signed</small></td>" in a_page(verdict)


def test_a_failure_of_curves_alone_says_what_tells_more_and_a_run_that_died_says_it_itself():
    wrong = a_verdict(a_record("r", FALLING), a_record("c", FALLING * 1.2), make_rules(["bias"]))
    died = a_verdict(a_record("r", FALLING), a_record("c", FALLING[:12]), make_rules(["coverage"]))
    assert wrong.outcome is died.outcome is Outcome.FAIL
    assert "emacheck audit --device NAME" in a_page(wrong)
    assert "emacheck audit" not in a_page(died)
