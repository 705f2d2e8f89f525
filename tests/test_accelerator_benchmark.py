"""benchmarks/accelerator.py: what is planned, what the figures are, and what the page says of them."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("torch")
BUNDLE = ROOT / "references" / "emanet_r50-d8_smoke" / "cpu-fp32"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import accelerator
        import accelerator_figures
        import accelerator_page
    finally:
        sys.path.pop(0)
    return accelerator, accelerator_figures, accelerator_page


@pytest.fixture
def plan(benchmark, tmp_path):
    return benchmark[0].Plan(
        device="cuda", presets=("smoke", "smoke-256x512"), precisions=("fp32", "tf32", "bf16"), most=100, repeats=8,
        threads=8, work=tmp_path / "work", references=tmp_path / "references",
    )  # fmt: skip


def test_every_candidate_has_a_reference_that_is_trained_before_it(plan):
    made = {step.place for step in plan.on_the_cpu()}
    judged = [step for step in plan.on_the_device() if step.arguments[0] == "run"]
    assert {step.name for step in judged} >= {"run smoke, cuda-fp32", "run smoke-256x512, cuda-bf16"}
    for step in judged:
        assert plan.work / step.arguments[step.arguments.index("--reference") + 1] in made
    # No CPU computes in TF32, and a reference of another precision is refused: that training is compared, not judged.
    assert all("tf32" not in str(place) for place in made)
    assert {step.arguments[:2] for step in plan.on_the_device() if "tf32" in step.name} == {("reference", "make")}


def test_every_command_is_one_that_the_command_line_knows(plan):
    import click

    from emacheck.cli import emacheck

    for step in (*plan.on_the_cpu(), *plan.on_the_device(), *plan.at_last()):
        command, arguments = emacheck, list(step.arguments)
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), arguments.pop(0))
        command.make_context("step", arguments)


def test_nothing_is_started_when_the_time_is_up_and_what_is_done_is_not_done_again(benchmark, plan, capsys):
    first, *_ = plan.on_the_cpu()
    first.place.mkdir(parents=True)
    benchmark[0].carry_out(plan.on_the_cpu(), at_once=1, until=0.0)
    said = capsys.readouterr().out
    assert first.name not in said
    assert said.count("left out:") == len(plan.on_the_cpu()) - 1 > 0


def test_the_figures_and_the_page_say_what_two_records_hold(benchmark, tmp_path):
    from emacheck import compare, read_log

    _, figures, pages = benchmark
    training = figures.trained_figures(BUNDLE, BUNDLE / "repeats" / "01")
    paired = compare(read_log(BUNDLE), read_log(BUNDLE / "repeats" / "01")).curve("loss")
    growth = training["relative difference"]["loss"]
    assert growth["at"][20] == abs(paired.relative_difference[19]) > 0
    assert growth["first above"]["0.0001"] == paired.first_above(1e-4)
    # Other last bits are another initial state, so the two do not count as paired.
    assert training["outcome"] == "INCONCLUSIVE"
    assert figures.equal(BUNDLE, BUNDLE)
    assert not figures.equal(BUNDLE, BUNDLE / "repeats" / "01")
    result = {
        "device": "cpu", "trainings": {"smoke, fp32": training}, "audits": {}, "missing": ["audit smoke, fp32"],
        "machine": figures.machine(BUNDLE, BUNDLE), "notes": "What this device is.\n\n",
    }  # fmt: skip
    pages.write_page(json.loads(json.dumps(result)), tmp_path)
    page = (tmp_path / "accelerator-cpu.md").read_text(encoding="utf-8")
    assert page.splitlines()[1:4] == ["", "What this device is.", ""]
    assert f"| {growth['at'][20]:.1e} |" in page
    assert "## Not measured\n\n- audit smoke, fp32" in page
    assert (tmp_path / "images" / "accelerator-cpu.png").read_bytes().startswith(b"\x89PNG")


def test_an_audit_is_told_by_the_tensors_that_came_nearest_to_their_limits(benchmark, tmp_path):
    tensor = {"kind": "Conv2d", "level": "isolated", "ratio": 3.0, "limit": 30.0}
    tensors = [tensor, {**tensor, "ratio": "Infinity", "kind": ""}, {**tensor, "ratio": 6.0}]
    finding = {"module": "stem", "kind": "Conv2d", "tensor": "output", "phase": "forward", "ratio": 90.0, "limit": 30.0}
    report = {
        **dict.fromkeys(("outcome", "module", "phase", "worst", "seconds", "peak_memory_bytes", "notes"), 0),
        "tensors": tensors, "findings": [{**finding, "outcome": "FAIL"}, {**finding, "outcome": "INCONCLUSIVE"}],
    }  # fmt: skip
    (tmp_path / "audit.json").write_text(json.dumps(report), encoding="utf-8")
    told = benchmark[1].audited_figures(tmp_path / "audit.json")
    assert told["share of the limit"] == {"isolated": {"many modules together": float("inf"), "Conv2d": 0.2}}
    assert [each["module"] for each in told["modules at fault"]] == ["stem"]


@pytest.mark.parametrize("stored", sorted((ROOT / "benchmarks" / "results").glob("accelerator_*.json")))
def test_a_page_of_a_device_is_what_the_figures_of_it_give(benchmark, stored):
    result = json.loads(stored.read_text(encoding="utf-8"))
    name = f"accelerator-{result['device']}"
    written = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert benchmark[2].page(result, f"images/{name}.png") == written


def test_it_says_what_it_does():
    command = [sys.executable, ROOT / "benchmarks" / "accelerator.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--device cuda" in done.stdout
