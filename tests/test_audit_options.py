"""What a caller asks of an audit: precision, modules, device, seed and loss."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from small_network import audited, hook, loss, set_on, trained_net  # noqa: E402

import emacheck  # noqa: E402
from emacheck.errors import UsageError  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
def test_other_accepted_precisions(subject, precision):
    assert audited(subject, precision=precision).outcome is Outcome.PASS
    result = audited(subject, set_on("blocks.0.bn", eps=1.0), precision=precision)
    assert (result.outcome, result.module) == (Outcome.FAIL, "blocks.0.bn")


def test_a_gradient_that_the_loss_scales_is_found_in_fp16_whose_loss_is_scaled_as_well(subject):
    def wrong(candidate):
        def scaled(model, batch):
            scores = model(batch["image"])
            if scores.requires_grad:
                scores.register_hook(lambda gradient: 1.02 * gradient)
            return F.cross_entropy(scores, batch["label"])

        candidate.loss = scaled

    result = audited(subject, wrong, precision="fp16", modules="(loss)", evaluation=False, end_to_end=False)
    assert (result.outcome, result.module, result.phase) == (Outcome.FAIL, "(loss)", "backward")


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
    options = {"seed": seed, "modules": "blocks.0.drop", "evaluation": False}
    assert audited(subject, **options).outcome is Outcome.PASS
    wrong = audited(subject, hook("blocks.0.drop", lambda output: 1.01 * output), end_to_end=False, **options)
    assert (wrong.outcome, wrong.module) == (Outcome.FAIL, "blocks.0.drop")


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


def test_audits_of_several_threads_do_not_disturb_each_other():
    def made():
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 2))

    def outcome(number, model):
        off = hook("0", lambda output: output * 1.001) if number % 2 else None
        result = emacheck.audit_step(
            model, None, torch.ones(4, 3), lambda m, b: m(b).square().mean(), "cpu", prepare=off, evaluation=False
        )
        return result.outcome

    with ThreadPoolExecutor(4) as several:
        assert [*several.map(outcome, range(8), [made() for _ in range(8)])] == [Outcome.PASS, Outcome.FAIL] * 4


def test_a_loss_of_one_number_in_a_vector_is_a_loss(subject):
    model, optimizer, batch, function = subject
    result = emacheck.audit_step(
        model, optimizer, batch, lambda m, b: function(m, b).reshape(1), "cpu", modules="stem", evaluation=False
    )
    assert result.outcome is Outcome.PASS


def test_an_autocast_around_the_call_does_not_widen_what_fp32_accepts(subject):
    slightly_off = hook("stem", lambda output: output * (1 + 2e-4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = audited(subject, slightly_off, modules="stem", evaluation=False, end_to_end=False)
        assert torch.is_autocast_enabled("cpu")
    assert (result.outcome, result.module) == (Outcome.FAIL, "stem")


def test_a_model_in_evaluation_mode_is_noted():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2)).eval()
    result = emacheck.audit_step(model, None, torch.ones(4, 3), lambda m, b: m(b).square().mean(), "cpu")
    assert result.outcome is Outcome.PASS
    assert any("the whole model is in evaluation mode" in note for note in result.notes)


def test_a_scripted_model_is_inconclusive():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 2)))
    result = emacheck.audit_step(model, None, torch.ones(4, 3), lambda m, b: m(b).square().mean(), "cpu")
    assert result.outcome is Outcome.INCONCLUSIVE


def test_a_container_alone_gets_the_gradients_of_its_children(subject):
    result = audited(subject, hook("blocks.1", lambda output: output * 1.001), modules="blocks.1", end_to_end=False)
    assert {error.module for error in result.errors} == {"blocks.1"}
    assert (result.outcome, result.module) == (Outcome.FAIL, "blocks.1")
    assert audited(subject, modules="blocks.1", end_to_end=False).outcome is Outcome.PASS


def test_a_model_without_a_loss_in_evaluation_mode_is_noted(subject):
    def only_in_training(model, batch):
        if not model.training:
            raise AssertionError
        return loss(model, batch)

    model, optimizer, batch, _ = subject
    result = emacheck.audit_step(model, optimizer, batch, only_in_training, "cpu")
    assert result.outcome is Outcome.PASS
    assert result.notes == ("evaluation mode was not audited, the reference fails in it: AssertionError",)


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

    with pytest.raises(UsageError, match=r"found the criterion MSELoss as the loss.*model\(batch\[0\]\)"):
        emacheck.audit_step(model, optimizer, batch, torch.nn.MSELoss(), "cpu")
    with pytest.raises(UsageError, match=r"found DataParallel as the model, expected .* model\.module"):
        emacheck.audit_step(torch.nn.DataParallel(model), optimizer, batch, loss, "cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": ["stem"]}, r"found \['stem'\] as the modules, expected one glob"),
        ({"seed": "a"}, "found 'a' as the seed"),
        ({"limits": {"isolated": 30}}, r"found {'isolated': 30} as the limits.*Limits\(isolated=30\)"),
        ({"precision": torch.bfloat16}, r"precision torch\.bfloat16: expected one of fp32"),
    ],
)
def test_options_of_another_kind_are_refused(subject, options, message):
    with pytest.raises(UsageError, match=message):
        audited(subject, **options)


def test_what_is_not_on_the_cpu_is_named_with_what_to_do():
    model, optimizer, batch, function = trained_net()

    def refused(found):
        return pytest.raises(UsageError, match=rf"found {found} on meta, expected it on the CPU: ")

    with refused("tensor image of the batch"):
        emacheck.audit_step(model, optimizer, {**batch, "image": batch["image"].to("meta")}, function, "cpu")
    with torch.device("meta"), pytest.raises(UsageError, match="found the default device meta"):
        emacheck.audit_step(model, optimizer, batch, function, "cpu")
    state = optimizer.state[model.stem.weight]
    state["exp_avg"] = state["exp_avg"].to("meta")
    with refused("exp_avg in the state of the optimizer"):
        emacheck.audit_step(model, optimizer, batch, function, "cpu")
    model.blocks[0].bn.running_mean = model.blocks[0].bn.running_mean.to("meta")
    with refused("blocks.0.bn.running_mean of the model"):
        emacheck.audit_step(model, optimizer, batch, function, "cpu")


def test_a_loss_function_that_runs_the_backward_pass_itself_is_refused(subject):
    model, optimizer, batch, _ = subject

    def trains(model, batch):
        value = loss(model, batch)
        value.backward()
        return value

    with pytest.raises(UsageError, match="the loss function ran the backward pass itself, expected one that returns"):
        emacheck.audit_step(model, optimizer, batch, trains, "cpu")
