"""Verdicts to show, text that breaks things, and strict JSON, for tests of the reports."""

import json
import math
import os
import re
from pathlib import Path

import pytest
from hypothesis import strategies as st

from emacheck.audit.findings.operators import (
    PROVEN,
    Explanation,
    Input,
    OperatorError,
    OperatorFindings,
    Trial,
    Unjudged,
)
from emacheck.audit.findings.result import AuditResult, ModuleFinding, TensorError
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


def an_audit(name="decode_head.ema_module", said="is wrong"):
    """Return an audit that fails, with operators; every name and message in it is one of the two given."""
    phases = {"output": "forward", "gradient weight": "backward", "buffer bases": "buffers"}
    modules = [
        ("backbone.stem.0", 1.0),
        (name, 2.0**10),
        ("backbone.layer1.0.bn1", 0.0),
        ("decode_head.conv", math.nan),
    ]
    errors = tuple(
        TensorError(
            module=module, kind=name, tensor=tensor, phase=phase, level=level, batch=1, depth=depth,
            error=ratio * 2.0**-24, accepted=2.0**-24, limit=30.0,
        )
        for depth, (module, ratio) in enumerate(modules)
        for tensor, phase in phases.items()
        for level in ("isolated", "evaluation", "end to end", "processes")
    )  # fmt: skip
    operator = OperatorError(
        operator=name, module=name, phase="forward", result="result", ratio=2.0**9, limit=30.0, error=2.0**-14,
        accepted=2.0**-23, measure="norm", index=(0, 3), value=0.5, truth=0.25, settings={name: name}, calls=7, over=4,
        inputs=(Input(name=name, dtype=name, shape=(2, 3), strides=(1, 2), contiguous=False),), only=said, repeats=True,
    )  # fmt: skip
    explanation = Explanation(
        scope=name, level="isolated", batch=1, conclusion=PROVEN, message=said, cause=(name,), operators=(operator,),
        calls=7, unjudged=(Unjudged(operator=name, calls=2, why=said),), ratio=2.0**10, limit=30.0,
        trials=(Trial(operators=(name,), ratio=1.0, limit=30.0, passes=True),),
    )  # fmt: skip
    worst = {"tensor": "output", "ratio": 2.0**10, "limit": 30.0, "count": 3}
    finding = {"kind": name, "phase": "forward", "introduced": True, "message": said}
    return AuditResult(
        device=name, precision=name, errors=errors, notes=(said,), state_hash="5a" * 32, batch_hashes=("b7" * 32,),
        findings=(
            ModuleFinding(module=name, outcome=Outcome.FAIL, **worst, **finding),
            ModuleFinding(module="auxiliary_head", outcome=Outcome.INCONCLUSIVE, **finding),
        ),
        operators=OperatorFindings(explanations=(explanation,), notes=(said,)),
        seconds=75.0, peak_memory=2**32,
    )  # fmt: skip


def apart_from_style(page):
    """Return a page without its stylesheet, a file of its own: the golden pages hold what is shown."""
    page = re.sub(r"(?s)<style>.+?</style>", "<style>style.css</style>", page, count=1)
    return re.sub(r"'sha256-[\w+/=]+'", "'sha256-of-style.css'", page, count=1)


def held_to_golden(name, shown):
    """Compare with a golden file, or write it where that is asked for, which fails as well."""
    path = GOLDEN / name
    if os.environ.get("EMACHECK_REWRITE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown, encoding="utf-8")
        pytest.fail(f"{path.name} was rewritten: look at the difference, then run without EMACHECK_REWRITE_GOLDEN")
    assert shown == path.read_text(encoding="utf-8"), "intended? rewrite with EMACHECK_REWRITE_GOLDEN=1"


def strict(shown):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(shown, parse_constant=refuse)
