"""The tables about published logs in docs/scoreboard.md, which a script writes from stored results."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "published_pairs.py"


@pytest.fixture(scope="module")
def pairs():
    spec = importlib.util.spec_from_file_location("published_pairs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_what_the_stored_results_say(pairs):
    page = pairs.PAGE.read_text(encoding="utf-8")
    assert page.count(pairs.BEGIN) == page.count(pairs.END) == 1
    assert page.split(pairs.BEGIN)[1].split(pairs.END)[0].strip() == pairs.rendered().strip()


def test_the_stored_results_hold_numbers_and_outcomes_of_every_pair_and_log(pairs):
    results = pairs.json.loads(pairs.RESULTS.read_text(encoding="utf-8"))
    assert set(results["pairs"]) == set(pairs.PAIRS)
    assert {name: row["training"] for name, row in results["records"].items()} == {
        name: training for name, (training, _) in pairs.COUNTED.items()
    }
