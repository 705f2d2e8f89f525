"""What the pages say of the audit's memory and of joined batches is what was measured, and what the audit expects."""

import json
import sys

import pytest
from conftest import ROOT

pytest.importorskip("torch")
sys.path.insert(0, str(ROOT / "benchmarks"))

import audit_memory
import joined_batch

from emacheck.cli.audit.memory import BASE, JOINED_BASE, PER_JOINED_PIXEL, PER_PIXEL


@pytest.mark.parametrize("script", [audit_memory, joined_batch], ids=lambda script: script.__name__)
def test_the_page_shows_the_stored_result(script):
    page = script.PAGE.read_text(encoding="utf-8")
    shown = script.render(json.loads(script.RESULTS.read_text(encoding="utf-8")))
    assert shown == page, f"run: python benchmarks/{script.__name__}.py --render"


def test_the_memory_that_is_expected_covers_what_was_measured_and_no_more_than_a_fifth_beyond_it():
    rows = json.loads(audit_memory.RESULTS.read_text(encoding="utf-8"))["rows"]
    ratios = {str(row): audit_memory.predicted(row) / row["peak_memory_bytes"] for row in rows}
    assert len(ratios) >= 6
    assert {row: ratio for row, ratio in ratios.items() if not 1 <= ratio <= 1.2} == {}


@pytest.mark.parametrize("numbers", [(BASE, PER_PIXEL), (JOINED_BASE, PER_JOINED_PIXEL)])
def test_the_page_says_what_is_expected(numbers):
    base, per_pixel = numbers
    page = audit_memory.PAGE.read_text(encoding="utf-8")
    assert f"{base / 2**30:g} GiB and {per_pixel / 2**10:g} KiB for each pixel" in page
