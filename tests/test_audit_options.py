"""What a caller asks of an audit: precision, modules, device, seed and loss."""

import pytest

torch = pytest.importorskip("torch")

from small_network import audited, hook, loss, set_on  # noqa: E402

import emacheck  # noqa: E402
from emacheck.errors import UsageError  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


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


def compiled(function):
    """Return a function that torch.compile would compile when it is called."""
    return torch.compile(function, backend="eager")


activation = torch.relu


class CallsWhatIsCompiled(torch.nn.Module):
    def forward(self, value):
        return activation(value)


def compiles_the_model(candidate):
    candidate.model = compiled(candidate.model)


def compiles_a_module(candidate):
    candidate.model.blocks[0].compile(backend="eager")


def calls_what_is_compiled(candidate):
    globals()["activation"] = compiled(torch.relu)
    candidate.model.blocks[0].relu = CallsWhatIsCompiled()


@pytest.mark.parametrize(
    ("prepare", "where"),
    [(compiles_the_model, "the model"), (compiles_a_module, "blocks.0"), (calls_what_is_compiled, "blocks.0.relu")],
)
def test_compiled_code_which_would_not_run_is_refused(subject, prepare, where):
    with pytest.raises(UsageError, match=f"found torch.compile in {where}, expected code as it was written"):
        audited(subject, prepare)


def test_a_compiled_loss_is_refused(subject):
    model, optimizer, batch, _ = subject
    with pytest.raises(UsageError, match=r"found torch.compile in the loss function"):
        emacheck.audit_step(model, optimizer, batch, compiled(loss), "cpu")


def test_arguments_of_another_kind_are_refused_and_said_what_they_are(subject):
    model, optimizer, batch, _ = subject
    with pytest.raises(UsageError, match=r"found list as the optimizer.*as a GAN has them, audit each with the loss"):
        emacheck.audit_step(model, [optimizer, optimizer], batch, loss, "cpu")
    with pytest.raises(UsageError, match="found dict as the loss, expected a function of model and batch"):
        emacheck.audit_step(model, optimizer, loss, batch, "cpu")
    with pytest.raises(UsageError, match=r"found function as the model, expected a torch.nn.Module"):
        emacheck.audit_step(loss, optimizer, batch, model, "cpu")


def test_a_loss_function_that_runs_the_backward_pass_itself_is_refused(subject):
    model, optimizer, batch, _ = subject

    def trains(model, batch):
        value = loss(model, batch)
        value.backward()
        return value

    with pytest.raises(UsageError, match="the loss function ran the backward pass itself, expected one that returns"):
        emacheck.audit_step(model, optimizer, batch, trains, "cpu")
