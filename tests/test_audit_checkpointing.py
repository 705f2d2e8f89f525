"""The audit of networks with activation checkpointing, which calls modules again in the backward pass."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from small_network import audited, hook, set_on, trained  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import emacheck  # noqa: E402
from emacheck.audit.findings.text import text  # noqa: E402
from emacheck.audit.iteration.draws import Draws  # noqa: E402
from emacheck.audit.iteration.subject import Subject  # noqa: E402
from emacheck.audit.judging.reference import Plan  # noqa: E402
from emacheck.audit.step import audit  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402

PLAIN = {"plain": lambda run, value: run(value)}
VARIANTS = {
    "reentrant": lambda run, value: checkpoint(run, value, use_reentrant=True),
    "not reentrant": lambda run, value: checkpoint(run, value, use_reentrant=False),
}


class Block(nn.Module):
    """A residual block whose inner part is checkpointed: children, functional code and a dropout that comes last."""

    def __init__(self, how):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.2)
        self.gain = nn.Parameter(torch.ones(8, 1, 1))
        self.how = how

    def inner(self, value):
        return self.drop(F.avg_pool2d(self.relu(self.bn(self.conv(value))), 3, 1, 1) * self.gain)

    def forward(self, value):
        return value + self.how(self.inner, value)


def network(how):
    torch.manual_seed(0)
    batch = {"image": torch.randn(4, 3, 8, 8), "label": torch.randint(0, 5, (4,))}
    layers = nn.Conv2d(3, 8, 3, padding=1), Block(how), Block(how), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return trained(nn.Sequential(*layers, nn.Linear(8, 5)), batch)


@pytest.fixture(scope="module", params=VARIANTS)
def subject(request):
    return network(VARIANTS[request.param])


def compared(result):
    return {(error.module, error.tensor, error.level) for error in result.errors}


def test_a_healthy_network_passes_and_nothing_is_compared_less_than_without_checkpoints(subject):
    result = audited(subject)
    assert result.outcome is Outcome.PASS, text(result, command="")
    assert compared(result) == compared(audited(network(PLAIN["plain"])))
    assert result.notes == ()


def wrong_backward(candidate):
    candidate.model[1].relu.inplace = False  # torch's condition for the hook
    candidate.model[1].relu.register_full_backward_hook(lambda _, gradients, __: (gradients[0] * 1.001,))


def wrong_gradient(candidate):
    candidate.model[2].gain.register_hook(lambda gradient: gradient * 1.001)


@pytest.mark.parametrize(
    ("prepare", "module", "phase"),
    [
        (set_on("1.bn", eps=1e-3), "1.bn", "forward"),
        (hook("2.conv", lambda output: output * 1.0001), "2.conv", "forward"),
        (set_on("1.bn", momentum=0.2), "1.bn", "buffers"),
        (wrong_backward, "1.relu", "backward"),
        (wrong_gradient, "2", "backward"),
    ],
)
def test_a_fault_in_a_checkpointed_module_is_named(subject, prepare, module, phase):
    result = audited(subject, prepare)
    assert (result.outcome, result.module, result.findings[0].phase) == (Outcome.FAIL, module, phase)
    assert {finding.module for finding in result.findings} <= {module, "(iteration)"}


def second_call(name, change):
    """Break every second call of a module while the candidate computes one thing: alone it is called once."""

    def prepare(candidate):
        calls = []

        @contextmanager
        def afresh():
            calls.clear()
            yield

        def broken(_, __, output):
            calls.append(1)
            return change(output) if len(calls) == 2 else output

        candidate.around.append(afresh)
        candidate.model.get_submodule(name).register_forward_hook(broken)

    return prepare


@pytest.mark.parametrize("name", ["1.conv", "2.bn", "1.drop"])
def test_a_call_that_is_wrong_only_when_it_is_repeated_is_named(subject, name):
    result = audited(subject, second_call(name, lambda output: output * 1.01))
    assert (result.outcome, result.module, result.phase) == (Outcome.FAIL, name, "backward")
    assert {finding.module for finding in result.findings} <= {name, "(iteration)"}
    assert "checkpointing repeats its call" in result.findings[0].message


def test_a_repeated_call_may_differ_by_rounding(subject):
    result = audited(subject, second_call("1.conv", lambda output: output * (1 + 2**-23)))
    assert result.outcome is Outcome.PASS, text(result, command="")


def test_masks_that_are_others_when_they_are_drawn_again_are_named(subject):
    result = audited(subject, lambda candidate: candidate.patch(torch, "set_rng_state", lambda _: None))
    assert result.outcome is Outcome.FAIL
    assert {finding.module for finding in result.findings} == {"1.drop", "2.drop", "(iteration)"}


class Average(nn.Module):
    """Its output depends on a buffer that each call moves, as that of an EMA module does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8, 1, 1))

    def forward(self, value):
        self.mean = self.mean.detach() * 0.9 + 0.1 * value.detach().mean((0, 2, 3)).view(8, 1, 1)
        return value * (1 + self.mean)


@pytest.mark.parametrize("how", VARIANTS)
def test_what_the_reference_repeats_otherwise_as_well_is_no_finding(how):
    torch.manual_seed(0)
    free = lambda run, value: checkpoint(run, value, use_reentrant=how == "reentrant", preserve_rng_state=False)  # noqa: E731
    model, _, batch, function = network(free)
    model[1].relu = nn.Sequential(nn.ReLU(), Average())
    subject = trained(model, batch, function)
    result = audited(subject)
    assert result.outcome is Outcome.PASS, text(result, command="")
    assert audited(subject, set_on("2.conv", forward=lambda value: value)).module == "2.conv"


class Own(torch.autograd.Function):
    """Checkpointing that torch does not know of."""

    @staticmethod
    def forward(ctx, run, value):
        ctx.run = run
        ctx.save_for_backward(value)
        return run(value)

    @staticmethod
    def backward(ctx, gradient):
        value = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            output = ctx.run(value)
        output.backward(gradient)
        return None, value.grad


def test_a_checkpoint_of_another_library_is_noted_and_its_repeated_calls_are_watched():
    torch.manual_seed(0)
    model, _, batch, function = network(Own.apply)
    model[1].drop = model[2].drop = nn.Identity()
    subject = trained(model, batch, function)
    result = audited(subject)
    assert result.outcome is Outcome.PASS, text(result, command="")
    assert result.notes[0].startswith(
        "called again in the backward pass, not by torch.utils.checkpoint: 1.bn and 6 more"
    )
    model, optimizer, batch, function = subject
    twice = audit(Subject(model=model, optimizer=optimizer, loss=function), [batch, batch], Plan(modules="0"))
    assert sum("called again in the backward pass" in note for note in twice.notes) == 1
    assert audited(subject, set_on("1.bn", eps=1e-3)).module == "1.bn"
    assert audited(subject, second_call("1.conv", lambda output: output * 1.01)).module == "1.conv"
    assert audited(subject, wrong_gradient).outcome is Outcome.FAIL


def test_draws_are_those_of_who_puts_the_generator_back_and_leave_the_generator_alone():
    before = torch.get_rng_state()
    with Draws(3) as draws:
        torch.rand(2)
        state, first = torch.get_rng_state(), torch.rand(5)
        assert draws.position == 2
        torch.set_rng_state(state)
        assert draws.position == 1
        assert torch.equal(torch.rand(5), first)
        assert not torch.equal(torch.rand(5), first)
    assert draws.position == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_a_reference_whose_operator_draws_by_itself_still_does_not_repeat():
    model = nn.Sequential(nn.Linear(4, 4), nn.RReLU())
    result = emacheck.audit_step(model, None, torch.ones(2, 4), lambda model, batch: model(batch).sum(), "cpu")
    assert (result.outcome, result.findings[0].tensor) == (Outcome.INCONCLUSIVE, "1 output")


ON_A_DEVICE = """
import torch_sdaa
from test_audit_checkpointing import VARIANTS, network
import emacheck
from torch import nn
for how in VARIANTS.values():
    subject = network(how)
    for _ in range(2):
        result = emacheck.audit_step(*subject, "sdaa", modules="*.drop", evaluation=False)
        print(result.outcome, *sorted(finding.module for finding in result.findings))
        subject[0][1].drop.p = subject[0][2].drop.p = 0.0
"""


@pytest.mark.slow
def test_a_device_whose_generator_is_not_put_back_is_found_where_masks_are_drawn(simulated_device):
    """The simulated device has no ``_initialized``, without which torch does not save its generator's state."""
    variables = simulated_device()
    paths = os.pathsep.join([str(Path(__file__).parent), variables["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", ON_A_DEVICE],
        env={**os.environ, **variables, "SDAA_SIMULATED_RNG": "device", "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["FAIL (iteration) 1.drop 2.drop", "PASS"] * 2, (done.stdout, done.stderr)
