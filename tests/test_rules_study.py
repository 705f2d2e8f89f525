"""The tables of docs/rules.md are what the recorded trainings give."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "rules_study.json"
sys.path.insert(0, str(ROOT / "benchmarks"))

from rules_page import with_section  # noqa: E402


def test_the_page_shows_the_stored_result():
    page = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    assert with_section(page, json.loads(RESULT.read_text(encoding="utf-8"))) == page, "run: make rules"


def test_no_benign_training_is_a_false_alarm_of_the_default_rules():
    benign = json.loads(RESULT.read_text(encoding="utf-8"))["benign"]
    assert {row["verdicts"][name] for row in benign.values() for name in row["verdicts"]} == {"PASS"}


@pytest.mark.slow
def test_judging_the_recorded_trainings_again_gives_the_stored_result():
    from rules_study import study

    assert json.loads(json.dumps(study())) == json.loads(RESULT.read_text(encoding="utf-8")), "run: make rules"


@pytest.mark.slow
def test_the_limits_that_are_fitted_cover_the_stored_repeats_and_are_no_wider_than_rounding_up_makes_them():
    from rules_study import Paired

    from emacheck.judge.first_iterations import AMPLIFICATION

    for metric, found in Paired().calibration().items():
        for limit, seen in zip(AMPLIFICATION[metric], found["amplification"], strict=True):
            assert max(seen, 4.0) <= limit * 1.0001
            assert limit <= max(1.1 * seen, 4.0)
