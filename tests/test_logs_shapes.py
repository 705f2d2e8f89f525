"""What others print while they train: each made-up log of log_shapes is read as the curves that are in it."""

import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHAPES = Path(__file__).parent / "log_shapes"
EXPECTED = tomllib.loads((SHAPES / "expected.toml").read_text(encoding="utf-8"))


def test_every_log_has_an_expectation_and_every_expectation_a_log():
    assert {path.name for path in SHAPES.iterdir()} == {"expected.toml", *(f"{name}.log" for name in EXPECTED)}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_each_shape_is_read_as_what_it_is(log, name):
    expected = EXPECTED[name]
    assert {"curves"} <= expected.keys() <= {"curves", "validation", "ranks"}
    record = log((SHAPES / f"{name}.log").read_bytes())
    assert record.ranks == expected.get("ranks", 1)
    for found, curves in ((record.curves, expected["curves"]), (record.validation, expected.get("validation", {}))):
        for metric, pairs in curves.items():
            assert found[metric].iterations.tolist() == [at for at, _ in pairs]
            assert found[metric].values.tolist() == pytest.approx([value for _, value in pairs], rel=1e-12, nan_ok=True)
