"""The drawings of the page: whatever the values, small, and with every single outlier."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages_to_show import Seen
from verdicts_to_show import NUMBERS, a_record, a_verdict

from emacheck.curve import Curve
from emacheck.judge import make_rules
from emacheck.record import Record
from emacheck.report.html.drawing import COLUMNS, course
from emacheck.report.html.page import html


class TestCurves:
    EXTREME = NUMBERS | st.sampled_from([0.0, -0.0, 5e-324, 1e-300, 1e29, 1e31, 1.7e308, -1.7e308, 1.0])

    @staticmethod
    def paths(reference, candidate, rules=None, **more):
        shown = html(a_verdict(reference, a_record("c", candidate, **more), rules), command="", environment={})
        return [(each.get("class"), each["d"]) for each in Seen(shown).all("path") if each.get("class")], shown

    @settings(max_examples=30)
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
