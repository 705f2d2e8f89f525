"""The audit on small networks: what it passes, what it finds, and where it says it is."""

import math
import weakref
from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from small_network import audited, hook, loss, set_group, set_on, trained  # noqa: E402
from torch import nn  # noqa: E402

from emacheck.audit.faults.places import replace_operator  # noqa: E402
from emacheck.audit.findings.text import text  # noqa: E402
from emacheck.audit.iteration.state import state_digest  # noqa: E402
from emacheck.audit.iteration.subject import Subject  # noqa: E402
from emacheck.audit.lockstep.end_to_end import Conditions, iterated  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


def test_a_healthy_network_passes_and_is_left_as_it_was(subject):
    before = state_digest(dict(subject[0].state_dict())), state_digest(subject[1].state_dict())
    result = audited(subject)
    assert result.outcome is Outcome.PASS, text(result, command="")
    assert {error.phase for error in result.errors} == {"forward", "loss", "backward", "optimizer", "buffers"}
    assert {"stem", "blocks.1", "blocks.1.bn", "head", "(model)", "(loss)", "(optimizer)"} <= {
        error.module for error in result.errors
    }
    assert {e.tensor for e in result.errors if e.module == "blocks.0.relu" and e.level == "isolated"} >= {
        "output",
        "output of call 2",
    }
    assert before == (state_digest(dict(subject[0].state_dict())), state_digest(subject[1].state_dict()))
    assert all(parameter.grad is None for parameter in subject[0].parameters())


def test_a_lazy_device_computes_before_its_results_are_looked_at(subject):
    events = []

    @contextmanager
    def computing():
        events.append("computes")
        yield
        events.append("done")

    def lazy(candidate):
        candidate.around.append(computing)
        candidate.mark_step = lambda: events.append("marked")

    assert audited(subject, prepare=lazy).outcome is Outcome.PASS
    assert len(events) > 30
    assert events == ["computes", "marked", "done"] * (len(events) // 3)


def wrong_scale(candidate):
    candidate.model.head.scale.register_hook(lambda gradient: gradient * 1.001)


def without_residual(candidate):
    block = candidate.model.blocks[0]
    block.forward = lambda value: block.relu(block.drop(block.relu(block.bn(block.conv(value)))) + 0 * value)


def doubled_gradients(candidate):
    def double(this):
        for parameter in this.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(2)

    candidate.before_step = double


@pytest.mark.parametrize(
    ("prepare", "module", "phase"),
    [
        (hook("stem", lambda output: output * 1.0001), "stem", "forward"),
        (hook("blocks.1", lambda output: output * 1.0001), "blocks.1", "forward"),
        (set_on("blocks.0.bn", eps=1e-3), "blocks.0.bn", "forward"),
        (set_on("blocks.1.bn", momentum=0.2), "blocks.1.bn", "buffers"),
        (set_on("blocks.0.drop", p=0.1), "blocks.0.drop", "forward"),
        (set_on("blocks.0.bn", training=False), "blocks.0.bn", "forward"),
        (without_residual, "blocks.0", "forward"),
        (wrong_scale, "head", "backward"),
        (set_group(lr=1.01e-3), "(optimizer)", "optimizer"),
        (set_group(weight_decay=0.0), "(optimizer)", "optimizer"),
        (set_group(eps=1e-6), "(optimizer)", "optimizer"),
        (doubled_gradients, "(optimizer)", "optimizer"),
    ],
)
def test_a_fault_is_found_and_named(subject, prepare, module, phase):
    result = audited(subject, prepare)
    assert result.outcome is Outcome.FAIL
    assert (result.module, result.findings[0].phase) == (module, phase), text(result, command="")
    assert result.findings[0].introduced


def test_an_iteration_that_is_over_keeps_no_tensors(subject):
    model, optimizer, batch, function = subject
    twin = Subject(model=model, optimizer=optimizer, loss=function).twin()
    with iterated(twin, batch, Conditions()) as found:
        gradient = weakref.ref(twin.model.stem.weight.grad)
        assert found
    assert not found
    assert gradient() is None


def test_a_fault_of_the_loss_is_found(subject):
    def smoothed(candidate):
        candidate.loss = lambda model, batch: F.cross_entropy(
            model(batch["image"]), batch["label"], label_smoothing=1e-3
        )

    result = audited(subject, smoothed)
    assert (result.outcome, result.module) == (Outcome.FAIL, "(loss)")


def test_a_fault_of_evaluation_mode_alone_is_found(subject):
    def wrong(candidate):
        bn = candidate.model.blocks[1].bn
        bn.register_forward_hook(lambda module, _, output: output if module.training else output * 1.001)

    result = audited(subject, wrong)
    assert (result.outcome, result.module) == (Outcome.FAIL, "blocks.1.bn")
    assert "evaluation mode" in result.findings[0].message
    assert audited(subject, wrong, evaluation=False).outcome is Outcome.PASS


def test_a_fault_in_the_labels_is_found_end_to_end_only(subject):
    def shifted(candidate):
        candidate.model.get_submodule("stem")
        own = candidate.loss
        candidate.change_batch = lambda batch: {**batch, "label": batch["label"].roll(1)}
        assert own is loss

    assert audited(subject, shifted).outcome is Outcome.FAIL


def test_a_broken_kernel_is_found_where_it_runs(subject):
    def wrong(candidate):
        replace_operator(
            candidate, ("max_pool2d_with_indices_backward",), lambda func, args, kwargs: func(*args, **kwargs) * 1.001
        )

    result = audited(subject, wrong)
    assert (result.outcome, result.module, result.phase) == (Outcome.FAIL, "(model)", "backward")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_never_passes(subject, value):
    def broken(output):
        output = output.clone()
        output[0, 0, 0, 0] = value
        return output

    result = audited(subject, hook("stem", broken))
    assert result.outcome is Outcome.FAIL
    assert result.module == "stem"
    assert result.findings[0].ratio == math.inf


def test_a_module_that_is_not_called_is_a_finding(subject):
    def skipped(candidate):
        block = candidate.model.blocks[0]
        block.forward = lambda value: block.relu(block.bn(block.conv(value)) + value)

    result = audited(subject, skipped)
    assert result.outcome is Outcome.FAIL
    assert "blocks.0 (Block) does other things than the reference" in "".join(f.message for f in result.findings)


def raises(error):
    def prepare(candidate):
        def fail(module, inputs):
            raise error

        candidate.model.blocks[0].conv.register_forward_pre_hook(fail)

    return prepare


ILLEGAL_ACCESS = """CUDA error: an illegal memory access was encountered
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1"""


@pytest.mark.parametrize(
    ("error", "outcome", "words"),
    [
        (
            NotImplementedError("Could not run 'aten::convolution_overrideable' with x"),
            "INCONCLUSIVE",
            "aten::convolution",
        ),
        (RuntimeError('"conv" not implemented for "Half"'), "INCONCLUSIVE", "conv"),
        (RuntimeError("x out of memory. Tried to allocate"), "INCONCLUSIVE", "smaller crop"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling it"), "INCONCLUSIVE", "more memory"),
        (RuntimeError("GET was unable to find an engine to execute this"), "INCONCLUSIVE", "compared: GET was unable"),
        (RuntimeError("CUDA error: no kernel image is available"), "INCONCLUSIVE", "not built for the card"),
        (RuntimeError(ILLEGAL_ACCESS), "FAIL", "was encountered (cpu says so late"),
        (RuntimeError(ILLEGAL_ACCESS), "FAIL", "with CUDA_LAUNCH_BLOCKING=1)"),
        (RuntimeError("kernel launch failed"), "FAIL", "kernel launch failed"),
    ],
)
def test_what_a_device_cannot_run_is_named(subject, error, outcome, words):
    result = audited(subject, raises(error))
    assert result.outcome.value == outcome
    assert result.findings[0].module == "blocks.0.conv"
    assert words in result.findings[0].message
    assert "stem" in {e.module for e in result.errors}  # the rest was audited


class Tied(nn.Module):
    """A language model: tied weights, attention with dropout, keyword and nested inputs and outputs, frozen parts."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.embedding.weight
        self.wrap = Nested()
        self.wrap.linear.weight.requires_grad_(False)

    def forward(self, tokens):
        value = self.layer(self.embedding(tokens), src_mask=None)
        value, _ = self.lstm(value)
        found = self.wrap(inputs={"value": value, "scale": 2.0}, flag=True)
        return self.out(found["more"][0])


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, inputs, flag):
        value = self.linear(inputs["value"]) * inputs["scale"]
        return {"more": (value, value.detach().argmax(-1)), "flag": flag}


def test_shared_frozen_nested_and_drawing_modules():
    torch.manual_seed(0)
    batch = torch.randint(0, 11, (3, 6))

    def next_token(model, tokens):
        return F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    subject = trained(Tied(), batch, next_token)
    result = audited(subject)
    assert result.outcome is Outcome.PASS, text(result, command="")
    assert {"embedding", "out", "wrap", "wrap.linear", "layer", "lstm"} <= {error.module for error in result.errors}
    wrong = audited(subject, set_on("wrap.linear", forward=lambda value: value))
    assert (wrong.outcome, wrong.module) == (Outcome.FAIL, "wrap.linear")
    warm = audited(subject, set_on("layer.dropout1", p=0.2))
    assert (warm.outcome, warm.module) == (Outcome.FAIL, "layer.dropout1")


def test_an_encoder_layer_in_evaluation_mode_is_audited_module_by_module_in_16_bits():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model, batch = nn.Sequential(layer, nn.Linear(8, 3)), torch.randn(4, 5, 8)
    subject = model, None, batch, lambda model, value: model(value).square().mean()

    def scaled_in_evaluation(candidate):
        norm = candidate.model.get_submodule("0.norm1")
        norm.register_forward_hook(lambda *args: None if norm.training else 1.05 * args[-1])

    right = audited(subject, precision="bf16", end_to_end=False)
    wrong = audited(subject, scaled_in_evaluation, precision="bf16", end_to_end=False)
    assert right.outcome is Outcome.PASS, text(right, command="")
    assert (wrong.outcome, wrong.module) == (Outcome.FAIL, "0.norm1")
