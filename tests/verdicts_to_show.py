"""Verdicts to show, text that breaks things, and strict JSON, for tests of the reports."""

import json
import math
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st

from emacheck.curve import Curve
from emacheck.judge import Finding, Outcome, Verdict, decide, make_rules
from emacheck.judge.comparison import compare
from emacheck.oddity import OddityKind, oddity
from emacheck.record import Record

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
