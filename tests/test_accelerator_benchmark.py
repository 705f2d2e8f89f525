"""benchmarks/accelerator.py: what is planned, what the figures are, and what the page says of them."""

import json
import subprocess
import sys
import time
from dataclasses import replace

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


@pytest.fixture
def stand_in(benchmark, tmp_path, monkeypatch):
    """Return a way to run a program in the place of emacheck, and what makes a step of it."""
    accelerator = benchmark[0]

    def make(program, **options):
        package = tmp_path / "package" / "emacheck"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(program, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(package.parent))
        monkeypatch.chdir(tmp_path)  # where -m looks first
        return accelerator.Step(**{"name": "step", "place": tmp_path / "place", "arguments": ()} | options)

    return make


def every_step(plan):
    return [step for group, _ in plan.groups() for step in group]


def test_every_candidate_has_a_reference_that_is_trained_before_it(plan):
    made = set()
    for step in every_step(plan):
        if step.arguments[0] == "run":
            assert plan.work / step.arguments[step.arguments.index("--reference") + 1] in made
        made.add(step.place)
    judged = {step.name for step in every_step(plan) if step.arguments[0] == "run"}
    assert judged == {
        f"run {preset}, cuda-{precision}" for preset in ("smoke", "smoke-256x512") for precision in ("fp32", "bf16")
    }
    # No CPU computes in TF32, and a reference of another precision is refused: that training is compared, not judged.
    assert not any("cpu-tf32" in str(place) for place in made)
    trained = {
        step.arguments[:2] for preset in plan.presets for step in plan.on_the_device(preset) if "tf32" in step.name
    }
    assert trained == {("reference", "make")}


def test_what_says_most_comes_first_and_what_is_timed_runs_alone(plan):
    names = [step.name for step in every_step(plan)]
    assert len(names) == len(set(names))
    assert [name for name in names if name.startswith("audit")] == [
        "audit smoke, fp32", "audit smoke, tf32", "audit smoke, bf16", "audit smoke-256x512, fp32"
    ]  # fmt: skip
    assert names[0] == "audit smoke, fp32"
    assert names[-2:] == ["audit smoke-256x512, fp32", "store the reference bundle"]
    last_of_smoke = max(at for at, name in enumerate(names) if "smoke," in name)
    assert last_of_smoke < min(at for at, name in enumerate(names) if "smoke-256x512" in name)
    for group, beside in plan.groups():
        for step in group:
            trains_on_the_device = step.arguments[0] != "audit" and "--device cuda" in " ".join(step.arguments)
            assert trains_on_the_device is not beside


def test_every_command_is_one_that_the_command_line_knows(plan):
    import click

    from emacheck.cli import emacheck

    for step in every_step(plan):
        command, arguments = emacheck, list(step.arguments)
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), arguments.pop(0))
        command.make_context("step", arguments)


def test_operators_are_ranked_after_all_else_and_of_audits_that_failed(plan):
    names, audits = [step.name for step in every_step(plan)], plan.audits("smoke")
    assert all("--no-operators" in step.arguments for step in audits)
    audits[0].place.parent.mkdir(parents=True)
    for step, report in zip(audits, ('{"outcome": "PASS"}', '{"outcome": "FAIL"}', '{"outcome":'), strict=True):
        step.place.write_text(report, encoding="utf-8")
    assert [step.name for step in every_step(plan) if step.name not in names] == ["operators of audit smoke, tf32"]
    *_, ranking, bundle = every_step(plan)
    assert bundle.name == "store the reference bundle"
    assert sorted((*ranking.arguments, "--no-operators")) == sorted(audits[1].arguments)
    assert ranking.place not in {step.place for step in audits}


def test_no_command_that_hangs_takes_all_the_time_there_is(benchmark, plan):
    def patience(plan):
        steps = every_step(plan)
        assert all(step.arguments.count("--timeout") == 1 for step in steps)
        return {
            f"{step.arguments[0]} {'large' if 'smoke-256x512' in step.arguments else 'small'}": float(
                step.arguments[step.arguments.index("--timeout") + 1]
            )
            for step in steps
        }

    # Without haste they are what the commands have by default.
    usual = patience(plan)
    assert set(usual.items()) == {(name, 1800.0 if name.startswith("audit") else 600.0) for name in usual}
    in_haste = replace(plan, minutes=8.0)
    hasty = patience(in_haste)
    # Nothing waits for the large audit.
    assert {name: hasty.pop(name) for name in ("audit small", "audit large")} == {
        "audit small": 240.0,
        "audit large": 480.0,
    }
    assert set(hasty.values()) == {120.0}


def test_nothing_is_started_when_the_time_is_up_and_what_is_done_is_not_done_again(benchmark, plan, capsys):
    steps = plan.on_the_cpu("smoke")
    steps[0].place.mkdir(parents=True)
    benchmark[0].carry_out(steps, at_once=1, until=0.0)
    said = capsys.readouterr().out
    assert steps[0].name not in said
    assert said.count("left out:") == len(steps) - 1 > 0


def test_what_still_runs_when_the_time_is_up_is_ended_and_leaves_no_half_of_a_result(benchmark, stand_in, monkeypatch):
    accelerator = benchmark[0]
    monkeypatch.setattr(accelerator, "GRACE_SECONDS", 2.0)
    program = "import pathlib, time; pathlib.Path('place').mkdir(); print('begun', flush=True); time.sleep(100)"
    step, after, started = stand_in(program, last_file="report.json"), [], time.monotonic()
    accelerator.carry_out([step], at_once=1, until=started + 1.0, then=lambda: after.append(step.done))
    assert time.monotonic() - started < 50
    assert after == [False]
    assert not step.place.exists()
    assert step.last_words == "begun / exit code -15"


def test_a_command_that_fails_is_no_result_and_the_others_go_on(benchmark, stand_in, tmp_path):
    failing = stand_in("raise SystemExit('no memory on this device')", place=tmp_path / "audit.json", keep=True)
    benchmark[0].carry_out([failing], at_once=1, until=time.monotonic() + 100)
    assert not failing.done
    assert failing.last_words == "no memory on this device / exit code 1"
    told = stand_in("print('{}')", place=tmp_path / "audit.json", keep=True)

    def cannot():
        raise OSError("disk full")

    later = stand_in("print('{}')", place=tmp_path / "other.json", keep=True)
    benchmark[0].carry_out([told, later], at_once=1, until=time.monotonic() + 100, then=cannot)
    assert [step.done for step in (told, later)] == [True, True]
    assert told.last_words is None


def test_what_a_call_that_was_killed_has_left_is_no_result(stand_in):
    program = "import pathlib; pathlib.Path('place').mkdir(); pathlib.Path('place/report.json').touch()"
    step = stand_in(program, last_file="report.json")
    step.place.mkdir()
    assert not step.done
    step.run()
    assert step.done


def test_the_figures_are_there_after_every_step(benchmark, tmp_path, monkeypatch, capsys):
    accelerator = benchmark[0]
    monkeypatch.setattr(accelerator.Step, "run", lambda step, _: write_audit(step))
    stored, seen = tmp_path / "results" / "accelerator_cuda.json", []
    kept = accelerator.write

    def write(place, text):
        kept(place, text)
        seen.append(len(json.loads(stored.read_text(encoding="utf-8"))["audits"]))

    monkeypatch.setattr(accelerator, "write", write)
    folders = (f"--{name}={tmp_path / name}" for name in ("work-dir", "references", "results", "docs"))
    options = ["--device=cuda", "--presets", "smoke", "--precisions", "fp32", "bf16", "--at-once=1", *folders]
    assert accelerator.main(options) == 1
    # Two audits, the first of which cannot be read; 2 + 3 trainings and a bundle that never come to be; and the end.
    assert seen == [0, 1, 1, 1, 1, 1, 1, 1, 1]
    result = json.loads(stored.read_text(encoding="utf-8"))
    assert result["failed"]["figures of smoke, fp32"].startswith("JSONDecodeError: ")
    assert "audit smoke, bf16" not in result["missing"]
    assert "run smoke, cuda-fp32" in result["missing"]
    assert "0 trainings, 1 audits" in capsys.readouterr().out


def write_audit(step):
    if step.keep:
        report = {
            **dict.fromkeys(("outcome", "module", "phase", "worst", "seconds", "peak_memory_bytes", "notes"), 0),
            "tensors": [], "findings": [],
        }  # fmt: skip
        step.place.parent.mkdir(parents=True, exist_ok=True)
        step.place.write_text("{" if "fp32" in step.name else json.dumps(report), encoding="utf-8")


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
        "device": "cpu", "trainings": {"smoke, fp32": training}, "audits": {},
        "missing": ["audit smoke, fp32", "audit smoke, bf16"],
        "failed": {"audit smoke, bf16": "out of memory"},
        "machine": figures.machine(BUNDLE, BUNDLE), "notes": "What this device is.\n\n",
    }  # fmt: skip
    pages.write_page(json.loads(json.dumps(result)), tmp_path)
    page = (tmp_path / "accelerator-cpu.md").read_text(encoding="utf-8")
    assert page.splitlines()[1:4] == ["", "What this device is.", ""]
    assert f"| {growth['at'][20]:.1e} |" in page
    assert "## Not measured\n\n- audit smoke, fp32\n- audit smoke, bf16: `out of memory`\n" in page
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
