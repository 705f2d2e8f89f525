"""The audit on small networks: what it passes, what it finds, and where it says it is."""

import json
import math
import weakref

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from small_network import audited, hook, loss, set_group, set_on, trained, trained_net  # noqa: E402
from torch import nn  # noqa: E402

import emacheck  # noqa: E402
from emacheck.audit.draws import Draws  # noqa: E402
from emacheck.audit.end_to_end import Conditions, iterated  # noqa: E402
from emacheck.audit.faults.places import replace_operator  # noqa: E402
from emacheck.audit.picture import draw  # noqa: E402
from emacheck.audit.result import AuditResult  # noqa: E402
from emacheck.audit.state import load_state, save_state, state_digest  # noqa: E402
from emacheck.audit.subject import Subject  # noqa: E402
from emacheck.audit.text import text  # noqa: E402
from emacheck.errors import DataError, UsageError  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


@pytest.fixture(scope="module")
def subject():
    return trained_net()


def test_a_healthy_network_passes_and_is_left_as_it_was(subject):
    before = state_digest(dict(subject[0].state_dict())), state_digest(subject[1].state_dict())
    result = audited(subject)
    assert result.outcome is Outcome.PASS, text(result, command="")
    assert {error.phase for error in result.errors} == {"forward", "loss", "backward", "optimizer", "buffers"}
    assert {"stem", "blocks.1", "blocks.1.bn", "head", "(model)", "(loss)", "(optimizer)"} <= {
        error.module for error in result.errors
    }
    assert before == (state_digest(dict(subject[0].state_dict())), state_digest(subject[1].state_dict()))
    assert all(parameter.grad is None for parameter in subject[0].parameters())


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
        (RuntimeError("kernel launch failed"), "FAIL", "kernel launch failed"),
    ],
)
def test_what_a_device_cannot_run_is_named(subject, error, outcome, words):
    result = audited(subject, raises(error))
    assert result.outcome.value == outcome
    assert result.findings[0].module == "blocks.0.conv"
    assert words in result.findings[0].message
    assert "stem" in {e.module for e in result.errors}  # the rest was audited


def test_a_reference_that_does_not_repeat_is_inconclusive():
    calls = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, value):
            calls.append(1)
            return self.linear(value) * len(calls)

    model = nn.Sequential(nn.Linear(4, 4), Counting())
    result = emacheck.audit_step(model, None, torch.ones(2, 4), lambda m, b: m(b).sum(), "cpu")
    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.findings[0].tensor == "1 output"
    assert "does not repeat" in result.findings[0].message


@pytest.mark.parametrize(
    "draw_some",
    [
        lambda like: F.dropout(torch.ones_like(like), 0.5),
        lambda like: F.dropout2d(torch.ones_like(like), 0.5),
        lambda like: torch.rand(like.shape, dtype=like.dtype),
        torch.randn_like,
        lambda like: torch.bernoulli(torch.full_like(like, 0.5)),
        lambda like: torch.empty_like(like).uniform_(),
        lambda like: torch.randperm(7).to(like.dtype) + torch.randint(0, 9, (7,)),
    ],
)
def test_draws_depend_on_seed_and_position_alone(draw_some):
    plain = torch.empty(2, 3, 4, 5)
    others = (plain.double(), plain.contiguous(memory_format=torch.channels_last))

    def drawn(like, seed, position):
        draws = Draws(seed)
        draws.position = position
        with draws:
            return draw_some(like).double()

    first = drawn(plain, 0, 0)
    assert all(torch.equal(drawn(like, 0, 0), first) for like in others)
    assert not torch.equal(drawn(plain, 1, 0), first)
    assert not torch.equal(drawn(plain, 0, 1), first)


def test_what_the_device_draws_itself_is_inconclusive(subject):
    def replaced(candidate):
        candidate.model.blocks[0].relu.forward = lambda value: F.rrelu(value, training=True)

    result = audited(subject, replaced)
    assert (result.outcome, result.findings[0].module) == (Outcome.INCONCLUSIVE, "blocks.0.relu")
    assert "rrelu_with_noise" in result.findings[0].message


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


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
def test_other_accepted_precisions(subject, precision):
    assert audited(subject, precision=precision).outcome is Outcome.PASS
    result = audited(subject, set_on("blocks.0.bn", eps=1.0), precision=precision)
    assert (result.outcome, result.module) == (Outcome.FAIL, "blocks.0.bn")


def test_low_precision_that_nobody_accepted_fails(subject):
    result = audited(
        subject, lambda candidate: candidate.around.append(lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    )
    assert result.outcome is Outcome.FAIL


def test_an_unknown_precision_is_refused(subject):
    with pytest.raises(UsageError, match="expected one of fp32"):
        audited(subject, precision="fp8")


def test_only_some_modules(subject):
    result = audited(subject, modules="blocks.1.*", end_to_end=False)
    assert {error.module for error in result.errors} == {
        "blocks.1.conv",
        "blocks.1.bn",
        "blocks.1.relu",
        "blocks.1.drop",
    }
    assert result.notes == ("no whole iteration was run", "only modules that match blocks.1.* ran in isolation")
    with pytest.raises(UsageError, match=r"found modules nothing, which matches nothing .* names such as stem"):
        audited(subject, modules="nothing", end_to_end=True)


@pytest.mark.parametrize("device", ["cuda", "nonsense", "meta"])
def test_a_device_that_is_not_there_is_refused(subject, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(UsageError, match=f"found device {device}, to which not even one number can be brought"):
        emacheck.audit_step(*subject, device)


@pytest.mark.parametrize("seed", [-1, 1 << 40])
def test_any_number_is_a_seed(subject, seed):
    assert audited(subject, seed=seed, modules="stem", evaluation=False).outcome is Outcome.PASS


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_that_records_no_gradients_gets_an_audit_with_them(subject, mode):
    with mode():
        result = audited(subject, modules="stem", evaluation=False)
    assert result.outcome is Outcome.PASS
    assert "backward" in {error.phase for error in result.errors}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: (value, 1), "returned tuple, expected a scalar tensor or a mapping"),
        (lambda value: value.expand(3), "returned loss with 3 elements, expected one"),
        (lambda value: value.item(), "returned float, expected a scalar tensor"),
        (lambda value: value.detach(), "found no loss with a gradient history"),
    ],
)
def test_what_is_no_loss_is_refused(subject, change, message):
    model, optimizer, batch, function = subject
    with pytest.raises(UsageError, match=message):
        emacheck.audit_step(model, optimizer, batch, lambda m, b: change(function(m, b)), "cpu")


def test_a_container_alone_gets_the_gradients_of_its_children(subject):
    result = audited(subject, hook("blocks.1", lambda output: output * 1.001), modules="blocks.1", end_to_end=False)
    assert {error.module for error in result.errors} == {"blocks.1"}
    assert (result.outcome, result.module) == (Outcome.FAIL, "blocks.1")
    assert audited(subject, modules="blocks.1", end_to_end=False).outcome is Outcome.PASS


def test_a_model_without_a_loss_in_evaluation_mode_is_noted(subject):
    def only_in_training(model, batch):
        return loss(model, batch) if model.training else model(batch["image"])

    model, optimizer, batch, _ = subject
    result = emacheck.audit_step(model, optimizer, batch, only_in_training, "cpu")
    assert result.outcome is Outcome.PASS
    assert any("evaluation mode was not audited" in note for note in result.notes)


def test_the_result_is_strict_json_and_readable(subject):
    result = audited(subject, set_on("blocks.0.bn", eps=1e-3))
    fields = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert (fields["outcome"], fields["module"], fields["phase"]) == ("FAIL", "blocks.0.bn", "forward")
    assert len(fields["state_hash"]) == 64
    assert fields["peak_memory_bytes"] > 0
    lines = text(result, command="emacheck audit").splitlines()
    assert lines[-1].startswith("FAIL audit blocks.0.bn ")
    assert lines[-1].endswith("in phase forward | emacheck audit")
    assert draw(result).startswith(b"\x89PNG")
    assert draw(result) == draw(result)


def test_nothing_compared_is_inconclusive():
    assert AuditResult(device="cpu", precision="fp32", errors=(), findings=()).outcome is Outcome.INCONCLUSIVE


def test_a_state_that_does_not_match_its_hash_is_refused(tmp_path, subject):
    state = {"model": dict(subject[0].state_dict()), "optimizer": subject[1].state_dict()}
    digest = save_state(tmp_path / "state", state)
    loaded, found = load_state(tmp_path / "state")
    assert found == digest == state_digest(loaded)
    loaded["model"]["stem.bias"][0] += 1e-3
    torch.save(loaded, tmp_path / "state" / "state.pt")
    with pytest.raises(DataError, match="does not match its hash"):
        load_state(tmp_path / "state")
    (tmp_path / "state" / "state.json").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_state(tmp_path / "state")
