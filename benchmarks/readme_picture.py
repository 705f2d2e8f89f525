"""The picture of the README: a recorded training with one defect, against its reference and eight repeats of it."""

from dataclasses import replace
from pathlib import Path

from recorded_runs import load

from emacheck.judge import decide
from emacheck.judge.comparison import compare
from emacheck.report.plot import draw
from emacheck.report.wording import headline

FAULT = "ema-softmax-in-bf16"
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "softmax-in-bf16.png"


def main() -> None:
    """Judge and draw, and print the outcome that stands beside the picture."""
    reference, candidate = load("reference"), load(FAULT)
    repeats = [load(f"repeat-{number}") for number in range(1, 9)]
    candidate = replace(candidate, initial_state=reference.initial_state)
    verdict = decide(compare(reference, candidate, repeats=repeats))
    PICTURE.write_bytes(draw(verdict))
    print(headline(verdict))


if __name__ == "__main__":
    main()
