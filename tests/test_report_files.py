"""The picture of a verdict, and how a report is written."""

import io
import math
import os
import resource
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verdicts_to_show import NUMBERS, VERDICTS, a_record, a_verdict

from emacheck.curve import Curve
from emacheck.errors import OutputError
from emacheck.judge import decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.oddity import OddityKind, oddity
from emacheck.record import Record
from emacheck.report.lines import moving_median
from emacheck.report.plot import CANDIDATE, CURVE_BOX, DIFFERENCE_BOX, OVER_LIMIT_COLOUR, draw
from emacheck.report.wording import headline
from emacheck.report.write import write_together


class TestPlot:
    EXTREME = NUMBERS | st.sampled_from([0.0, -0.0, 5e-324, 1e-300, 1e29, 1e31, 1.7e308, -1.7e308, 1.0])

    @staticmethod
    def drawn(reference, candidate, **more):
        content = draw(a_verdict(a_record("r", reference), a_record("c", candidate, **more)))
        assert content.startswith(b"\x89PNG")
        return content

    @pytest.mark.slow
    @settings(max_examples=30)
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

    def test_the_title_is_the_whole_headline_and_within_the_picture(self, monkeypatch):
        from matplotlib.figure import Figure

        written, write = [], Figure.text

        def text(figure, *given, **more):
            written.append(write(figure, *given, **more))
            return written[-1]

        monkeypatch.setattr(Figure, "text", text)
        on_cpu = oddity(OddityKind.ON_CPU, "some of it was computed on the CPU")
        more = {"oddities": (on_cpu,), "complete": False}
        reference, candidate = (a_record(name, range(40, 20, -1), metric="decode.loss_ce", **more) for name in "rc")
        verdict = a_verdict(reference, candidate, make_rules(["mean_relative_error"]))
        assert draw(verdict)
        said = "bit-identical, partly on the CPU, although integrity would be INCONCLUSIVE"
        assert written[0].get_text() == headline(verdict)
        assert headline(verdict).endswith(said)
        assert written[0].get_window_extent().x1 <= 0.98 * 1200

    def test_never_imports_pyplot(self):
        code = (
            "import sys, emacheck.report.plot as plot; assert 'matplotlib' not in sys.modules\n"
            "from emacheck import Curve, Record, compare, decide\n"
            "record = Record(name='', format='', curves={'loss': Curve(name='loss', iterations=[1], values=[1.0])})\n"
            "plot.draw(decide(compare(record, record))); assert 'matplotlib.pyplot' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.sampled_from([1, 3, 5, 21, 101]))
    def test_the_moving_median_is_centred(self, values, window):
        at = np.arange(len(values))
        reach = [min(window // 2, i, len(values) - 1 - i) for i in at]
        expected = [np.median(values[i - r : i + r + 1]) for i, r in zip(at, reach, strict=True)]
        np.testing.assert_allclose(moving_median(np.array(values), window, at), expected, rtol=1e-9, atol=1e-6)

    @pytest.mark.parametrize("at", [0, 99, 199])
    def test_a_single_spike_is_seen_as_one_iteration(self, at):
        values = np.linspace(4.0, 2.0, 200)
        spiked = np.where(np.arange(200) == at, 5000.0, values * 1.001)
        content = draw(a_verdict(a_record("r", list(values)), a_record("c", list(spiked))))
        above, below = panel(content, CURVE_BOX), panel(content, DIFFERENCE_BOX)
        columns = np.flatnonzero(like(above[: len(above) // 2], CANDIDATE.colour).any(axis=0))
        assert 1 < len(columns) < 20  # the ring around the point, and no plateau of a smoothed line
        assert not like(above, OVER_LIMIT_COLOUR).any()
        limit = np.flatnonzero(like(below, OVER_LIMIT_COLOUR).any(axis=1))
        assert len(limit) < 5  # the line of the limit, which lies across

    def test_there_is_no_iteration_between_two(self):
        above = panel(self.drawn([4.0], [4.1]), CURVE_BOX)
        grid = above[:50].mean(axis=(0, 2)) < 0.96
        assert np.count_nonzero(np.diff(grid[10:-10].astype(int)) == 1) == 1

    def test_the_metric_that_did_not_pass_is_the_one_that_is_drawn(self):
        good, bad = (
            {n: Curve(name=n, iterations=range(1, 21), values=[v] * 20) for n, v in (("a", 4.0), ("b", b))}
            for b in (1.0, 2.0)
        )
        reference, candidate = (Record(name="r", format="example", curves=curves) for curves in (good, bad))
        both = draw(a_verdict(reference, candidate, make_rules(["bias"])))
        without = replace(a_verdict(reference, candidate, make_rules(["bias"])), findings=())
        assert like(panel(both, DIFFERENCE_BOX), CANDIDATE.colour).any()  # the ring around the largest difference
        assert not like(panel(draw(without), DIFFERENCE_BOX), CANDIDATE.colour).any()

    def test_no_limit_is_drawn_for_a_rule_that_was_not_applied(self):
        for rule, drawn in (("mean_relative_error", True), ("equivalence", False)):
            low, high = a_record("r", [4.0] * 30), a_record("c", [4.4] * 30)
            below = panel(draw(a_verdict(low, high, make_rules([rule]))), DIFFERENCE_BOX)
            assert (like(below, OVER_LIMIT_COLOUR).mean(axis=1) > 0.5).any() == drawn

    def test_the_legend_lies_beside_the_name_of_the_axis(self):
        values = [4.0 - i / 64 for i in range(60)]
        broken = [v * (1 if i < 5 else math.nan if i == 30 else 1.0001) for i, v in enumerate(values)]
        more = {"initial_state": "s", "batches": ("b",) * 60}
        repeats = [a_record(str(i), [v * (1 + 1e-7 * (i + n % 3)) for n, v in enumerate(values)]) for i in (1, 2, 3)]
        comparison = compare(a_record("r", values, **more), a_record("c", broken, **more), repeats=repeats)
        content = draw(decide(comparison, make_rules(["finite", "mean_relative_error", "envelope"])))
        beside = panel(content, (0.78, 0.045, 0.05, 0.03))
        assert not like(beside, "#000000").any()

    @pytest.mark.parametrize("first", [1, 2**53, 2**63 - 60])
    @pytest.mark.parametrize("count", [1, 2, 50])
    def test_iterations_of_any_size_are_drawn_without_a_warning(self, first, count):
        verdict = a_verdict(
            a_record("r", [1.0 + i for i in range(count)], first=first),
            a_record("c", [1.1 + i for i in range(count)], first=first),
            make_rules(["mean_relative_error"]),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            draw(verdict)


def panel(content, box):
    """Return the pixels of one panel of a picture."""
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(content))
    height, width = pixels.shape[:2]
    x, y, wide, high = box
    return pixels[
        round((1 - y - high) * height) : round((1 - y) * height),
        round(x * width) - 5 : round((x + wide) * width) + 5,
        :3,
    ]


def like(pixels, colour):
    """Tell which pixels have nearly a colour."""
    wanted = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return np.abs(pixels - wanted).max(axis=2) < 0.1


class TestWrite:
    def test_writes_text_and_bytes(self, tmp_path):
        write_together({tmp_path / "a": "é\n"})
        write_together({tmp_path / "b": b"\x00"})
        assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"
        assert (tmp_path / "b").read_bytes() == b"\x00"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]

    def test_replaces_a_file_and_follows_a_link(self, tmp_path):
        (tmp_path / "real").write_text("old")
        (tmp_path / "link").symlink_to("real")
        write_together({tmp_path / "link": "new"})
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_text() == "new"

    def test_a_link_to_nothing_does_not_choose_where_a_report_is_written(self, tmp_path):
        (tmp_path / "link").symlink_to("elsewhere")
        with pytest.raises(OutputError, match=r"(?s)link: .*a symbolic link to .*elsewhere, where there is nothing"):
            write_together({tmp_path / "link": "new"})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link"]

    def test_a_relative_name_is_enough(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write_together({Path("a"): "x"})
        assert (tmp_path / "a").read_text() == "x"

    def test_a_missing_directory_is_named(self, tmp_path):
        with pytest.raises(OutputError, match=r"(?s)found: +nothing at .*missing.*mkdir -p"):
            write_together({tmp_path / "missing" / "a": "x"})

    def test_a_file_is_no_directory(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(OutputError, match=r"found: +a file"):
            write_together({tmp_path / "file" / "a": "x"})

    def test_a_directory_is_not_replaced(self, tmp_path):
        with pytest.raises(OutputError, match="a directory"):
            write_together({tmp_path: "x"})

    def test_a_device_or_pipe_is_not_replaced(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OutputError, match="device, pipe or socket"):
            write_together({tmp_path / "pipe": "x"})
        assert (tmp_path / "pipe").is_fifo()

    def test_nothing_is_left_when_writing_fails(self, tmp_path, monkeypatch):
        def full(self, target):
            raise OSError(28, "No space left on device")

        (tmp_path / "a").write_text("old")
        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(OutputError, match="No space left on device"):
            write_together({tmp_path / "a": "new"})
        assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]

    def test_a_new_directory_is_made_with_its_files_in_it_or_not_at_all(self, tmp_path, monkeypatch):
        new, write, seen = tmp_path / "deep" / "new", Path.write_bytes, []

        def watched(self, content):
            seen.append(new.exists())
            return write(self, content)

        monkeypatch.setattr(Path, "write_bytes", watched)
        write_together({new / "a": "x", new / "b": "y", tmp_path / "c": "z"}, new=new)
        assert (seen, sorted(path.name for path in new.iterdir())) == ([False] * 3, ["a", "b"])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "deep"]
        with pytest.raises(OutputError, match="File exists"):
            write_together({new / "a": "later"}, new=new)
        assert (new / "a").read_text() == "x"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupt_between_two_files_waits_for_all_of_them(self, tmp_path, monkeypatch, number):
        """Some of them alone would look like a report."""
        replace = Path.replace

        def interrupted(self, target):
            signal.raise_signal(number)
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", interrupted)
        before = signal.signal(number, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                write_together({tmp_path / "a": "PASS", tmp_path / "b": "PASS"})
        finally:
            signal.signal(number, before)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]

    def test_all_files_are_written_or_none_where_there_is_no_room_for_all(self, tmp_path):
        (tmp_path / "b").write_text("old")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(OutputError, match="b: cannot be written"):
                write_together({tmp_path / "a": "PASS", tmp_path / "b": "x" * 2000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "old"}
