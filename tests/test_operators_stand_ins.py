"""What the CPU runs for an operator that is another one on a device, and which results mean the same on both."""

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402, N812

from emacheck.audit.arithmetic.precision import Precision  # noqa: E402
from emacheck.audit.faults.places import ReplacedOperator  # noqa: E402
from emacheck.audit.iteration.signature import written  # noqa: E402
from emacheck.audit.operators.host import host_call  # noqa: E402
from emacheck.audit.operators.observer import Observer  # noqa: E402

CPU = torch.device("cpu")
aten = torch.ops.aten


def a_call(func, *args, **kwargs):
    """Return what the CPU makes of a call that only a device could make."""
    return host_call(func, args, kwargs, Precision()).run()


def test_operators_that_only_devices_have_are_repeated_as_what_the_cpu_runs_for_them():
    torch.manual_seed(0)
    value, weight, bias = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3), torch.randn(4)
    place = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    out = a_call(aten.convolution_overrideable.default, value, weight, bias, *place)["result"]
    assert torch.equal(out, aten.convolution(value, weight, bias, *place))
    made = a_call(aten.convolution_backward_overrideable.default, out, value, weight, *place, [True, True, True])
    due = aten.convolution_backward(out, value, weight, [4], *place, [True, True, True])
    assert all(torch.equal(made[f"result.{at}"], each) for at, each in enumerate(due))

    scale, shift, mean, variance = torch.rand(3), torch.rand(3), torch.zeros(3), torch.ones(3)
    given = (value, scale, shift, mean, variance)
    made = a_call(aten.cudnn_batch_norm.default, *given, True, 0.1, 1e-5)
    assert (mean.tolist(), variance.tolist()) == ([0.0] * 3, [1.0] * 3), "what the device is given stays as it is"
    due = aten.native_batch_norm(value, scale, shift, mean, variance, True, 0.1, 1e-5)
    assert all(torch.equal(made[f"result.{at}"], each) for at, each in enumerate(due))
    assert torch.equal(made["running_mean"], mean)
    assert "result.3" not in made
    assert a_call(aten.cudnn_batch_norm.default, *given, False, 0.1, 1e-5).keys() == {
        "result.0",
        "running_mean",
        "running_var",
    }
    saved = (due[1], due[2])
    made = a_call(
        aten.cudnn_batch_norm_backward.default, value, value, scale, mean, variance, *saved, 1e-5, torch.empty(0)
    )
    due = aten.native_batch_norm_backward(value, value, scale, mean, variance, *saved, True, 1e-5, [True, True, True])
    assert all(torch.equal(made[f"result.{at}"], each) for at, each in enumerate(due))


@pytest.mark.parametrize("name", ["cudnn_batch_norm", "miopen_batch_norm", "native_batch_norm"])
def test_a_batch_norm_of_any_name_saves_in_training_what_its_backward_needs_and_else_nothing_that_is_compared(name):
    torch.manual_seed(0)
    given = torch.randn(2, 3, 5, 5), torch.rand(3), torch.rand(3), torch.zeros(3), torch.ones(3)
    made = a_call(getattr(aten, name).default, *given, True, 0.1, 1e-5)
    due = aten.native_batch_norm(*given, True, 0.1, 1e-5)
    assert all(torch.equal(made[f"result.{at}"], each) for at, each in enumerate(due))
    made = a_call(getattr(aten, name).default, *given, False, 0.1, 1e-5)
    assert made.keys() == {"result.0", "running_mean", "running_var"}
    assert written(getattr(aten, name).default) == {"running_mean", "running_var"}
    updated = a_call(aten._batch_norm_with_update.default, *given, 0.1, 1e-5)
    assert torch.equal(updated["result.1"], due[1])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("mask", [[True, True, True], [False, True, False]])
def test_the_backward_of_a_convolution_gives_what_is_asked_for_with_as_many_biases_as_it_has_channels(transposed, mask):
    torch.manual_seed(0)
    value, weight = torch.randn(1, 4, 8, 8), torch.randn(4, 3, 3, 3) if transposed else torch.randn(6, 2, 3, 3)
    place = ([1, 1], [1, 1], [1, 1], transposed, [0, 0], 2)
    out = aten.convolution(value, weight, None, *place)
    made = a_call(aten.convolution_backward_overrideable.default, out, value, weight, *place, mask)
    due = aten.convolution_backward(out, value, weight, [6], *place, mask)
    assert [f"result.{at}" in made for at in range(3)] == mask
    assert all(torch.equal(made[f"result.{at}"], due[at]) for at in range(3) if mask[at])


@pytest.mark.parametrize("short", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["_softmax", "_log_softmax"])
def test_a_softmax_that_reads_16_bits_and_writes_32_is_exact_in_float64(name, short):
    value, function = torch.randn(2, 5).to(short), getattr(torch, name.removeprefix("_"))
    call = host_call(getattr(aten, name).default, (value, 1, True), {}, Precision())
    assert torch.equal(call.run()["result"], function(value.float(), 1))
    assert torch.equal(call.run(dtype=torch.float64)["result"], function(value.double(), 1))
    assert a_call(getattr(aten, name).default, value, 1, False)["result"].dtype is short
    backward, made, gradient = getattr(aten, f"{name}_backward_data").default, function(value.float(), 1), value.float()
    call = host_call(backward, (gradient, made, 1, short), {}, Precision())
    assert torch.equal(call.run()["result"], backward(gradient, made, 1, torch.float32).to(short))
    due = backward(gradient.double(), made.double(), 1, torch.float64)
    assert torch.equal(call.run(dtype=torch.float64)["result"], due)


def beside(*others):
    """Return what a device does that returns other things beside the result of an operator."""
    return lambda func, args, kwargs: (func(*args, **kwargs)[0], *others)


@pytest.mark.parametrize(
    ("operator", "device", "run"),
    [
        (
            "nll_loss2d_forward",
            lambda func, args, kwargs: (func(*args, **kwargs)[0], torch.rand(())),
            lambda value: F.cross_entropy(value, torch.zeros(2, 4, 4, dtype=torch.long), reduction="none"),
        ),
        ("log_sigmoid_forward", beside(torch.empty(0)), F.logsigmoid),
        (
            "_embedding_bag",
            beside(*torch.tensor([[0, 0, 1, 1], [2, 2, 0, 0], [0, 0, 0, 0]])),
            lambda value: F.embedding_bag(torch.arange(4), value[0, 0], torch.tensor([0, 2]), mode="sum"),
        ),
    ],
)
def test_what_cuda_returns_otherwise_than_the_cpu_beside_a_right_result_is_no_error(operator, device, run):
    value = torch.randn(2, 3, 4, 4, requires_grad=True)
    for result, passes in ((device, True), (lambda *call: (device(*call)[0] * 1.01, *device(*call)[1:]), False)):
        observer = Observer(CPU, Precision(), limit=30.0)
        with ReplacedOperator((operator,), result), observer:
            run(value)
        (row,) = [row for row in observer.ranking.ranked() if operator in row.operator]
        assert (row.passes, row.result, observer.ranking.unjudged()) == (passes, "result.0", ())
        assert row.repeats is (None if passes else True)


@pytest.mark.parametrize("size", [(4,), (3, 4, 4)])
def test_the_backward_of_a_loss_that_is_not_summed_up_is_judged_whatever_its_total_weight_is(size):
    name = "nll_loss_forward" if len(size) == 1 else "nll_loss2d_forward"
    value, labels = torch.randn(2, *size, requires_grad=True), torch.zeros(2, *size[1:], dtype=torch.long)
    observer = Observer(CPU, Precision(), limit=30.0)
    with ReplacedOperator((name,), beside(torch.tensor(float("nan")))), observer:
        F.cross_entropy(value, labels, reduction="none").sum().backward()
    rows = {row.operator: row.passes for row in observer.ranking.ranked()}
    assert rows[f"aten.{name.replace('forward', 'backward')}.default"]
    assert observer.ranking.unjudged() == ()


def test_the_total_weight_of_a_loss_that_is_summed_up_is_compared():
    observer = Observer(CPU, Precision(), limit=30.0)
    with ReplacedOperator(("nll_loss_forward",), beside(torch.tensor(3.0))), observer:
        F.cross_entropy(torch.randn(2, 4), torch.tensor([1, 3]))
    (row,) = [row for row in observer.ranking.ranked() if not row.passes]
    assert (row.operator, row.result) == ("aten.nll_loss_forward.default", "result.1")
