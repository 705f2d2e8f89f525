"""Whether a training was what it is called: on the device, in the precision, a training at all."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from emacheck import Curve, Outcome, compare, decide
from emacheck.judge.rules.integrity import Integrity
from emacheck.logs import read_log
from emacheck.oddity import Effect, OddityKind
from emacheck.record import Record
from emacheck.report.wording import headline
from emacheck.train.device.devices import parse_device

LOSS = Curve(name="loss", iterations=range(1, 21), values=range(40, 20, -1))
PROGRAM = Path(__file__).parent / "simulated_device" / "programs" / "called_sdaa.py"


@pytest.fixture(scope="module")
def trained(simulated_device, tmp_path_factory):
    """What the worker says of trainings that are called trainings on sdaa, and where their records are."""
    place = tmp_path_factory.mktemp("called")
    done = subprocess.run(
        [sys.executable, PROGRAM, place],
        env={**os.environ, **simulated_device()},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), place


def observed(place):
    return json.loads((place / "run.json").read_text(encoding="utf-8"))["provenance"]["observed"]


def test_a_training_that_is_what_it_is_called_says_so(trained):
    said, place = trained
    assert [said[name] for name in ("healthy", "in bf16", "compiled")] == ["", "", ""]
    healthy, in_bf16, compiled = (observed(place / name) for name in ("healthy", "in bf16", "compiled"))
    assert (healthy["updates"], healthy["parameters"], healthy["on_host"]) == (3, "sdaa:0", [])
    assert healthy["types"].split()[::2] == ["float32"]
    assert {"float32", "bfloat16"} == set(in_bf16["types"].replace(",", "").split()[::2])
    assert compiled["graphs"] > 0
    assert (compiled["fallback"], compiled["parameters"]) == ([], "cpu")
    assert "graphs" not in healthy


def test_a_lazy_device_computes_after_the_backward_pass_and_after_each_iteration(trained):
    said, place = trained
    assert said["lazy"] == ""
    # By how many iterations the record holds: each time before the iteration's numbers are looked at.
    assert said["marked"] == [0, 0, 1, 1, 2, 2]
    assert (place / "lazy" / "iterations.jsonl").exists()
    assert said["lazy without its function"].startswith(
        "--device sdaa: __main__.sdaa_mark_step, by which its DeviceKind says that it computes what it has put off, is "
        "not there, expected a function."
    )


def test_what_is_compiled_stays_compiled_to_the_end(trained):
    """torch leaves code as it is written, for good, once it has run while operators are watched."""
    said, place = trained
    assert said["in a compiled part"] == ""
    assert said["iterations of the compiled part"] == 3
    assert "types" not in observed(place / "in a compiled part")
    assert "types" not in observed(place / "compiled")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("another mmengine", "--device sdaa: found 4 of 4 parameters on another device, the first of them conv.weight"),
        ("a constructor without autocast", "--precision bf16: found no operator of iteration 3 that computed in bfloa"),
        ("no learning rate", "no weight has changed, although the optimizer stepped in 3 of 3 iterations"),
        ("accumulating", "no weight was updated before the last of 3 iterations"),
        ("compiled by nobody", "compile: torch has compiled nothing, so this was a training of the code as it is"),
    ],
)
def test_a_training_that_is_not_what_it_is_called_ends_without_a_verdict(trained, name, words):
    said, place = trained
    assert said[name].startswith(words)
    # Nor is its record taken for one by whoever reads it later.
    assert json.loads((place / name / "run.json").read_text(encoding="utf-8"))["complete"] is False


def test_a_training_on_another_device_ends_after_its_first_iteration(trained):
    _, place = trained
    healthy, other = ((place / name / "iterations.jsonl").read_text() for name in ("healthy", "another mmengine"))
    assert healthy.count("\n") - other.count("\n") >= 2


def test_operators_that_ran_on_the_cpu_limit_a_verdict_and_are_named(trained):
    _, place = trained
    # The simulated device runs what it has no kernel for as the CPU's, by torch's own fallback.
    assert {"aten::relu", "aten::addmm", "aten::_log_softmax"} <= set(observed(place / "healthy")["fallback"])
    assert "aten::convolution" not in observed(place / "healthy")["fallback"]
    on_host = observed(place / "attention on the host")["on_host"]
    assert on_host == ["aten::_softmax", "aten::_softmax_backward_data"]
    assert set(observed(place / "told")["fallback"]) - set(observed(place / "healthy")["fallback"]) == {"aten::isin"}

    record = read_log(place / "attention on the host")
    by_fallback, by_the_program = (each for each in record.oddities if each.kind is OddityKind.ON_CPU)
    assert by_fallback.effect is Effect.LIMITS
    assert " ran through the fallback of sdaa, as a rule on the CPU, and say nothing about it: " in str(by_fallback)
    assert str(by_the_program).startswith("2 operators ran on the CPU, to which the program itself brought what sdaa")
    verdict = decide(compare(record, record), [Integrity()])
    assert verdict.outcome is Outcome.PASS
    assert f"the candidate: {by_the_program}" in verdict.findings[0].limited_by
    assert headline(verdict).startswith("PASS integrity 0 (limit 0), bit-identical, partly on the CPU")


def test_an_environment_that_lets_the_cpu_run_operators_unseen_limits_a_verdict(trained):
    said, place = trained
    assert said["allowed"] == ""
    found = [str(each) for each in read_log(place / "allowed").oddities if each.kind is OddityKind.ON_CPU]
    assert found[1:] == [
        "operators of sdaa may have run on the CPU, unseen, for the environment allows it: "
        "TORCH_SDAA_RUNTIME_AUTOFALLBACK=1"
    ]
    known = json.loads((place / "allowed" / "run.json").read_text(encoding="utf-8"))["provenance"]["device"]
    assert (known["TORCH_SDAA_RUNTIME_AUTOFALLBACK"], known["TORCH_SDAA_FALLBACK_OPS"]) == ("1", "")
    assert observed(place / "healthy")["allowed"] == []


@pytest.mark.parametrize("observed", [None, [], {"fallback": "aten::relu"}, {"on_host": None}])
def test_a_record_that_does_not_say_where_it_ran_is_read_as_before(trained, tmp_path, observed):
    _, place = trained
    run = json.loads((place / "healthy" / "run.json").read_text(encoding="utf-8"))
    run["provenance"]["observed"] = observed
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    (tmp_path / "iterations.jsonl").write_bytes((place / "healthy" / "iterations.jsonl").read_bytes())
    record = read_log(tmp_path)
    assert record.complete
    assert record.oddities == ()


@pytest.mark.parametrize(
    ("reference", "candidate", "said"),
    [
        (("sdaa", "card"), ("sdaa", "card"), True),
        (("sdaa", "card"), ("sdaa", "newer card"), False),
        (("cpu", "host"), ("cpu", "host"), False),
        (("cpu", "host"), ("sdaa", "card"), False),
        (None, ("sdaa", "card"), False),
        (None, None, False),
    ],
)
def test_a_device_that_is_held_against_itself_limits_the_verdict(reference, candidate, said):
    def record(device):
        known = {} if device is None else {"device": dict(zip(("type", "name"), device, strict=True))}
        return Record(name="", format="", curves={"loss": LOSS}, provenance=known)

    (finding,) = Integrity().check(compare(record(reference), record(candidate)))
    assert finding.outcome is Outcome.PASS
    words = "both were trained on sdaa (card), and what it does wrong in both does not show"
    assert (words in finding.limited_by) is said


def hooked(*, lr=0.1, steps=(True,), meanwhile=None, freeze_after=None, several=False):
    """Train a weight, and return what the hook says of it: its facts, and what it refuses."""
    torch = pytest.importorskip("torch")
    optim = pytest.importorskip("mmengine.optim")
    from emacheck.errors import TrainingError
    from emacheck.train.device.precision import set_float32
    from emacheck.train.observed import ObserverHook

    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    idle = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)
    one, other = (optim.OptimWrapper(optimizer=each) for each in (optimizer, idle))
    wrapper = optim.OptimWrapperDict(idle=other, busy=one) if several else one
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper)
    set_float32(parse_device("cpu"), "fp32")
    hook = ObserverHook(parse_device("cpu"), "fp32", iterations=len(steps), compiled=False)
    hook.before_train(runner)
    for at, step in enumerate(steps):
        hook.before_train_iter(runner, at)
        if step:
            model.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        if meanwhile is not None:
            meanwhile()
        if freeze_after == at:
            model.requires_grad_(False)
        hook.after_train_iter(runner, at)
    try:
        hook.require_as_asked()
    except TrainingError as error:
        return hook.facts(), str(error)
    return hook.facts(), ""


@pytest.mark.parametrize(
    ("options", "updates", "words"),
    [
        ({"steps": [True]}, 1, ""),
        ({"steps": [True, False]}, 1, ""),
        ({"steps": [True], "lr": 0}, 1, "no weight has changed, although the optimizer stepped in 1 of 1 iterations"),
        # In fp16 the first step is left out where the loss scale is too large for it, and its loss is as good.
        ({"steps": [False]}, 0, ""),
        ({"steps": [False, True]}, 1, "no weight was updated before the last of 2 iterations"),
        ({"steps": [False, False]}, 0, "no weight was updated before the last of 2 iterations"),
        ({"steps": [True, True], "several": True}, 2, ""),
        ({"steps": [True], "freeze_after": 0}, 1, ""),
    ],
)
def test_a_training_trains_if_a_step_moved_a_weight_before_its_last_iteration(options, updates, words):
    facts, said = hooked(**options)
    assert facts["updates"] == updates
    assert said.startswith(words) if words else said == ""


def test_a_training_in_which_float32_became_something_else_is_refused():
    torch = pytest.importorskip("torch")
    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("this torch has no switch for a CPU")
    before = torch.get_float32_matmul_precision()
    try:
        _, said = hooked(meanwhile=lambda: torch.set_float32_matmul_precision("medium"))
    finally:
        torch.set_float32_matmul_precision(before)
    assert said.startswith("torch.backends.mkldnn.matmul: found switched during the training")


@pytest.mark.parametrize(
    ("asked", "cards", "found"),
    [
        ("cuda:1", [1, 1], ""),
        ("cuda:0", [0], ""),
        ("cuda", [1], ""),
        ("cuda:1", [1, 0], "found 1 of 2 parameters on another device, the first of them 0.weight on cuda:0"),
        ("cuda:0", [0, 1], "found 1 of 2 parameters on another device, the first of them 1.weight on cuda:1"),
    ],
)
def test_a_model_on_another_card_of_the_same_kind_is_elsewhere(asked, cards, found):
    torch = pytest.importorskip("torch")
    pytest.importorskip("mmengine")
    from emacheck.train.observed import elsewhere

    class OnCards:
        """Weights on cards that this host has not."""

        def named_parameters(self):
            yield from ((f"{at}.weight", SimpleNamespace(device=torch.device("cuda", at))) for at in cards)

    said = elsewhere(OnCards(), parse_device(asked))
    assert found in said
    assert bool(said) is bool(found)


@pytest.mark.parametrize(
    ("said", "operators"),
    [
        ("a.py:1: UserWarning: Operator aten::isin falls back to the CPU now", {"aten::isin"}),
        ("The operator 'aten::isin' will fall-back to run on the cpu", {"aten::isin"}),
        ("a.py:1: UserWarning: some operator will\nfall back to the CPU", {"some operator will fall back to the CPU"}),
        (f"this falls back to the CPU {'x' * 300}", {f"this falls back to the CPU {'x' * 300}"[:200]}),
        ("a.py:1: UserWarning: falling back to CPUs", set()),
        ("a.py:1: UserWarning: the CPU is slow", set()),
    ],
)
def test_a_warning_of_a_fallback_is_heard_in_the_words_of_several_vendors(said, operators):
    pytest.importorskip("mmengine")
    from emacheck.train.observed import ToldToFallBack

    told = ToldToFallBack()
    told.hear(said)
    assert told.operators == operators


def test_where_nobody_has_imported_the_compiler_nothing_is_compiled(monkeypatch):
    pytest.importorskip("mmengine")
    from emacheck.train.observed import compiled_graphs

    monkeypatch.delitem(sys.modules, "torch._dynamo.utils", raising=False)
    assert compiled_graphs() == 0
    assert "torch._dynamo.utils" not in sys.modules
