"""The measured section of docs/operators.md is what the stored result gives."""

import json
import sys

import pytest
from conftest import ROOT

RESULT = ROOT / "benchmarks" / "results" / "operators_power.json"
PAGE = ROOT / "docs" / "operators.md"
sys.path.insert(0, str(ROOT / "benchmarks"))

from operators_page import with_section  # noqa: E402


def test_the_page_shows_the_stored_result():
    page = PAGE.read_text(encoding="utf-8")
    shown = with_section(page, json.loads(RESULT.read_text(encoding="utf-8")))
    assert shown == page, "run: python benchmarks/operators_power.py --render"


@pytest.mark.parametrize("page", [PAGE, ROOT / "README.md"], ids=lambda page: page.name)
def test_the_example_of_a_page_was_said_in_a_trial(page):
    example = page.read_text(encoding="utf-8").partition("operators: decode_head")[2].partition("\n")[0]
    devices = json.loads(RESULT.read_text(encoding="utf-8"))["devices"].values()
    assert f"decode_head{example}" in {each["message"] for device in devices for each in device["explanations"]}
