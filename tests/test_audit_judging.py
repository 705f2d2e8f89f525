"""Decisions of the judge of one candidate that few networks ask for: repeats, exact optimizers, overflow, phases."""

import math
from collections import OrderedDict

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from small_network import audited, hook  # noqa: E402
from torch import nn  # noqa: E402

from emacheck.audit.arithmetic.measure import Distance  # noqa: E402
from emacheck.audit.arithmetic.precision import Precision  # noqa: E402
from emacheck.audit.findings.result import ITERATION  # noqa: E402
from emacheck.audit.findings.text import text  # noqa: E402
from emacheck.audit.iteration.calls import OPTIMIZER, Call  # noqa: E402
from emacheck.audit.iteration.repeats import Different, Repeats  # noqa: E402
from emacheck.audit.iteration.subject import Subject  # noqa: E402
from emacheck.audit.judging.candidate import Judged, _owner, _repeated  # noqa: E402
from emacheck.audit.judging.reference import Plan, Reference  # noqa: E402
from emacheck.audit.limits import Limits  # noqa: E402
from emacheck.audit.lockstep.parts import Part  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402

ALONE = {"evaluation": False, "end_to_end": False}


def off_by(size):
    return Distance(norm=size, peak=size)


def repeated(outputs, *, in_the_reference=()):
    """What is said of a convolution whose repeated call gave outputs so far from those of its first call."""
    different = {name: Different(kind="Conv2d", outputs={}) for name in in_the_reference}
    reference = Reference(subject=None, batch=None, plan=Plan(), repeats=Repeats(names=(), different=different))
    again = Repeats(names=(), different={"conv": Different(kind="Conv2d", outputs=outputs)})
    judged = Judged(accepted={("conv", "output"): off_by(1e-7), ("conv", "output 1"): off_by(1e-3)})
    return _repeated(reference, again, judged)


@pytest.mark.parametrize(
    ("outputs", "ratio"),
    [
        # Each of the two calls may be off by the limit of 30.
        ({"output": 59e-7}, None),
        ({"output": 61e-7}, 61.0),
        ({"output": 1e-7, "output 1": 0.1}, 100.0),
        ({"output": 90e-7, "output 1": 1e-3}, 90.0),
        ({"output": math.nan, "output 1": 1e-3}, math.inf),
        # To what did not run alone nothing can be held.
        ({"output 2": 1.0}, None),
    ],
)
def test_a_repeated_call_may_be_off_by_twice_the_limit_in_its_worst_output(outputs, ratio):
    outputs = {path: off_by(size) for path, size in outputs.items()}
    found = repeated(outputs)
    assert [each.ratio for each in found] == pytest.approx([] if ratio is None else [ratio])
    assert all((each.outcome, each.phase, each.introduced) == (Outcome.FAIL, "backward", True) for each in found)
    assert repeated(outputs, in_the_reference=["conv"]) == []
    assert len(repeated(outputs, in_the_reference=["other"])) == len(found)


@pytest.mark.parametrize(
    ("precision", "kept_in", "said"),
    [
        ("fp32", torch.bfloat16, "output, which is bfloat16 there and float32 on the reference"),
        # An accelerator's autocast computes it in float32.
        ("bf16", torch.bfloat16, "output, which is bfloat16 there and float32 on the reference"),
        ("fp32", torch.float32, ""),
    ],
)
def test_a_module_that_keeps_its_output_in_another_type_is_said_to(precision, kept_in, said):
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(first=nn.Linear(6, 4), last=nn.LogSoftmax(1)))
    batch = torch.randn(16, 6), torch.randint(0, 4, (16,))
    subject = model, None, batch, lambda m, b: F.nll_loss(m(b[0]).float(), b[1])
    convert = hook("last", lambda output: output.to(kept_in))
    result = audited(subject, convert, **ALONE, precision=precision)
    messages = [each.message for each in result.findings if each.module == "last"]
    assert [message.partition("inputs: ")[2] for message in messages] == ([said] if said else [])
    rows = [row for row in result.to_json()["tensors"] if (row["module"], row["tensor"]) == ("last", "output")]
    assert ["types" in row for row in rows] == [bool(said)] * len(rows)


def from_zero(lr):
    """Return a layer whose weights are zero, so that one step of SGD with a power of two is exact."""
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    for weight in model.parameters():
        weight.data.zero_()
    batch = torch.randn(16, 6), torch.randint(0, 4, (16,))
    return model, torch.optim.SGD(model.parameters(), lr=lr), batch, lambda m, b: 64 * F.cross_entropy(m(b[0]), b[1])


@pytest.mark.parametrize(("roundings", "outcome"), [(2, Outcome.PASS), (1000, Outcome.FAIL)])
def test_a_step_that_is_exact_in_the_reference_may_be_rounded_by_the_device(roundings, outcome):
    def rounded(candidate):
        candidate.optimizer.param_groups[0]["lr"] *= 1 + roundings * 2.0**-24

    result = audited(from_zero(0.5), rounded, **ALONE, modules=OPTIMIZER)
    assert result.outcome is outcome, text(result, command="")
    assert {(error.module, error.phase, error.limit) for error in result.errors} == {(OPTIMIZER, "optimizer", 30.0)}
    assert {error.tensor for error in result.errors} >= {"update (model).weight", "update (model).bias"}


def test_a_step_that_the_device_cannot_make_fails_where_no_whole_iteration_runs_either():
    def no_step(*_):
        raise RuntimeError("no such kernel")

    result = audited(from_zero(0.5), lambda candidate: candidate.patch(candidate.optimizer, "step", no_step), **ALONE)
    assert [(each.module, each.outcome, each.phase) for each in result.findings] == [
        (OPTIMIZER, Outcome.FAIL, "optimizer")
    ]
    assert "no such kernel" in result.findings[0].message


def test_a_step_that_overflows_in_the_accepted_precision_is_noted_as_not_judged():
    assert audited(from_zero(1e35), None, **ALONE).notes == ("no whole iteration was run",)
    result = audited(from_zero(3e38), None, **ALONE)
    assert result.outcome is Outcome.PASS, text(result, command="")
    assert result.notes[0].startswith("2 tensors were not judged, because fp32 itself overflows there")
    assert result.notes[0].endswith("the first is update bias in (model) after the optimizer's step")


def test_a_state_of_the_optimizer_that_overflows_in_the_accepted_precision_is_noted_and_all_else_is_judged():
    model, _, batch, function = from_zero(0.5)
    adam = torch.optim.Adam(model.parameters())
    result = audited((model, adam, batch, lambda m, b: 1e24 * function(m, b)), None, evaluation=False)
    assert result.outcome is Outcome.PASS, text(result, command="")
    assert result.notes[0].startswith("2 tensors were not judged, because fp32 itself overflows there")
    assert "the first is state exp_avg_sq of bias in (model) after the optimizer's step" in result.notes[0]


class Both(nn.Module):
    """Returns what it computes and a penalty, which is one number."""

    def forward(self, value):
        return value.tanh(), value.square().mean()


class Penalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.both = nn.Linear(6, 4), Both()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, value):
        value, penalty = self.both(self.linear(value))
        self.seen += value.detach().mean(0)
        return value, penalty


def penalised():
    def loss(model, batch):
        value, penalty = model(batch[0])
        return {"loss": F.cross_entropy(value, batch[1]), "penalty": penalty.reshape(1)}

    torch.manual_seed(0)
    return Penalised(), None, (torch.randn(16, 6), torch.randint(0, 4, (16,))), loss


def test_one_number_that_a_module_returns_belongs_to_the_loss_and_its_other_outputs_to_the_forward_pass():
    result = audited(penalised(), modules="both", **ALONE)
    phases = {error.tensor: error.phase for error in result.errors if error.tensor.startswith("output")}
    assert phases == {"output 0": "forward", "output 1": "loss"}


def test_only_what_a_loss_returns_belongs_to_the_phase_of_the_loss():
    result = audited(penalised(), modules="(loss)", **ALONE)
    assert {error.phase for error in result.errors if error.tensor.startswith("output")} == {"loss"}
    assert {error.phase for error in result.errors if "gradient" in error.tensor} == {"backward"}
    assert {error.module for error in result.errors} == {"(loss)"}


@pytest.mark.parametrize(
    ("place", "phase", "words"),
    [("linear", "backward", "gradient of linear.weight is not finite"), ("", "buffers", "buffer seen is not finite")],
)
def test_what_is_not_finite_after_a_whole_iteration_alone_is_said_with_its_phase(place, phase, words):
    def in_the_end(candidate):
        def break_it(this):
            if place:
                this.model.linear.weight.grad.fill_(math.nan)
            else:
                this.model.seen.fill_(math.inf)

        candidate.before_step = break_it

    result = audited(penalised(), in_the_end, evaluation=False, modules="both")
    broken = [each for each in result.findings if each.kind == "invariant"]
    assert [(each.module, each.outcome, each.phase) for each in broken] == [(ITERATION, Outcome.FAIL, phase)]
    assert words in broken[0].message


def test_a_candidate_that_runs_alone_and_not_as_a_whole_fails():
    def at_the_end(candidate):
        def fail(_):
            raise ValueError("no such thing")

        candidate.before_step = fail

    result = audited(penalised(), at_the_end, evaluation=False)
    assert (result.outcome, [each.module for each in result.findings]) == (Outcome.FAIL, [ITERATION])
    assert "no such thing" in result.findings[0].message


def test_the_mode_of_every_module_is_as_it_was_after_an_audit_in_evaluation_mode():
    model, *others = penalised()
    model.both.eval()
    seen = []
    prepare = hook("both", lambda output: seen.append(1) or output)

    def keep(candidate):
        prepare(candidate)
        seen.append(candidate)

    audited((model, *others), keep)
    candidate = seen[0]
    assert [module.training for module in candidate.model.modules()] == [True, True, False]


@pytest.mark.parametrize(
    ("caller", "called", "owner"),
    [
        ("(model)", "stem", "(model)"),
        ("(model)", "blocks.0", "(model)"),
        ("(model)", "head.conv", "head"),
        ("(model)", "head.ema.conv", "head"),
        ("(loss)", "(model)", "(loss)"),
        ("head", "head.conv", "head"),
        ("head", "head.ema.conv", "head.ema"),
        ("blocks", "blocks.0.conv", "blocks.0"),
        # A module that is called by its first name, under which it belongs to another one.
        ("head", "backbone.stem.conv", "head"),
        ("head", "header.conv", "head"),
    ],
)
def test_what_a_module_is_given_was_made_by_the_code_around_it(caller, called, owner):
    call = Call(name=caller, index=0, kind="")
    for kind in ("input of", "gradient at"):
        assert _owner(call, Part(kind, f"{called} 0.0")) == owner
    assert _owner(call, Part("gradient", "weight")) == caller
    assert _owner(call, Part("output", "decode.loss_ce")) == caller


def test_a_head_that_gives_a_layer_of_the_backbone_something_wrong_is_named_and_no_module_that_is_not_there():
    class Head(nn.Module):
        def __init__(self, stem):
            super().__init__()
            self.again = stem

        def forward(self, value):
            return self.again(value.tanh())

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(OrderedDict(stem=nn.Sequential(OrderedDict(linear=nn.Linear(6, 6)))))
            self.head = Head(self.backbone.stem.linear)

        def forward(self, value):
            return self.head(self.backbone(value))

    def wrong(candidate):
        candidate.model.head.forward = lambda value: candidate.model.head.again(1.01 * value.tanh())

    torch.manual_seed(0)
    batch = torch.randn(16, 6), torch.randint(0, 6, (16,))
    result = audited((Shared(), None, batch, lambda m, b: F.cross_entropy(m(b[0]), b[1])), wrong, **ALONE)
    assert (result.outcome, {each.module for each in result.findings}) == (Outcome.FAIL, {"head"})


@pytest.mark.parametrize(
    ("precision", "alone", "operators"),
    [("fp32", 7.0, 30.0), ("tf32", 7.0, 30.0), ("bf16", 3.0, 10.0), ("fp16", 3.0, 10.0)],
)
def test_16_bits_have_a_limit_of_their_own_in_modules_and_operators(precision, alone, operators):
    plan = Plan(precision=Precision(name=precision), limits=Limits(isolated=7.0, half=3.0))
    assert (plan.limit_alone, plan.limit_of_operators) == (alone, operators)


@pytest.mark.parametrize(
    ("modules", "names", "wanted"),
    [
        (None, None, ["head", "head.conv", "(loss)"]),
        ("head*", None, ["head", "head.conv"]),
        (None, frozenset({"head", "(loss)"}), ["head", "(loss)"]),
        ("head*", frozenset({"head", "(loss)"}), ["head"]),
        ("HEAD", None, []),
        (None, frozenset(), []),
    ],
)
def test_modules_are_wanted_by_glob_and_by_name(modules, names, wanted):
    plan = Plan(modules=modules, names=names)
    assert [each for each in ("head", "head.conv", "(loss)") if plan.wants(each)] == wanted


@pytest.mark.parametrize(
    ("options", "variations"),
    [
        ({}, 5),
        ({"number": 2}, 2),
        ({"number": 2, "keep": True}, 5),
        # That without oneDNN is none of 16 bits.
        ({"plan": Plan(precision=Precision(name="bf16"))}, 4),
    ],
)
def test_the_first_batch_pools_all_benign_variations_of_a_whole_iteration_and_later_ones_two(options, variations):
    model, optimizer, batch, function = from_zero(0.5)
    subject = Subject(model=model, optimizer=optimizer, loss=function)
    whole = Reference(**{"subject": subject, "batch": batch, "plan": Plan(), **options}).iteration()
    assert len(whole.accepted) == variations
    assert all(each.keys() == whole.truth.keys() for each in whole.accepted)
    if variations == 2:  # the plain one, and the one that flips masks
        every = Reference(subject=subject, batch=batch, plan=Plan(), keep=True).iteration()
        assert whole.accepted == (every.accepted[0], every.accepted[-1])


class Refused(nn.Module):
    """Raises in a benign variation, or always."""

    def __init__(self, always):
        super().__init__()
        self.linear, self.always = nn.Linear(6, 4), always

    def forward(self, value):
        if self.always or not torch.backends.mkldnn.enabled:
            raise ValueError("this kernel needs oneDNN")
        return self.linear(value)


def test_a_benign_variation_that_cannot_run_is_left_out_and_the_plain_one_may_not_be():
    _, _, batch, function = from_zero(0.5)
    reference = Reference(
        subject=Subject(model=Refused(False), optimizer=None, loss=function), batch=batch, plan=Plan()
    )
    assert len(reference.iteration().accepted) == 4
    (refused,) = reference.refused.items()
    assert (refused[0], refused[1].endswith(": this kernel needs oneDNN")) == (ITERATION, True)
    broken = Reference(subject=Subject(model=Refused(True), optimizer=None, loss=function), batch=batch, plan=Plan())
    with pytest.raises(ValueError, match="needs oneDNN"):
        broken.iteration()
