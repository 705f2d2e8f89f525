"""What an operator is held to: choices among equals, masks, memory that is not read, NaN, and what comes and goes."""

import math
import warnings

import pytest

torch = pytest.importorskip("torch")

from small_network import trained, trained_net  # noqa: E402
from test_operators import QUICK, audited, broken, explained, scaled  # noqa: E402
from test_operators_calls import CPU  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from emacheck.audit.arithmetic.precision import Precision  # noqa: E402
from emacheck.audit.faults.places import ReplacedOperator, replace_operator  # noqa: E402
from emacheck.audit.findings.operators import PROVEN, UNREPEATED  # noqa: E402
from emacheck.audit.limits import Limits  # noqa: E402
from emacheck.audit.operators.observer import Observer  # noqa: E402


def observed(name, change, run, *, precision="fp32", probed=False):
    """Return the ranking of what runs with one operator replaced."""
    observer = Observer(CPU, Precision(name=precision), limit=30.0 if precision == "fp32" else 10.0, probed=probed)
    with ReplacedOperator((name,), change), observer:
        run()
    return observer.ranking


def wrong(ranking):
    return [(row.operator, row.result) for row in ranking.ranked() if not row.passes]


def other_indices(func, args, kwargs):
    values, indices = func(*args, **kwargs)
    return values, (indices + 1) % 64


def last_of_equals(func, args, kwargs):
    return args[0].numel() - 1 - func(args[0].flip(-1), *args[1:], **kwargs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_wrong_indices_are_found_beside_ties(precision):
    torch.manual_seed(0)
    value = torch.randn(2, 3, 8, 8).relu().to(torch.bfloat16 if precision == "bf16" else torch.float32)
    run = lambda: F.max_pool2d(value.clone().requires_grad_(), 2)  # noqa: E731
    ranking = observed("max_pool2d_with_indices", other_indices, run, precision=precision)
    assert wrong(ranking) == [("aten.max_pool2d_with_indices.default", "result.1")]


@pytest.mark.parametrize("value", [torch.ones(2), torch.ones(3), torch.zeros(2), torch.full((2,), -math.inf)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_any_of_equal_values_may_be_chosen(value, dtype):
    value = value.nan_to_num(neginf=-5.0).to(dtype) if dtype is torch.int64 else value.to(dtype)
    assert wrong(observed("argmax", last_of_equals, lambda: value.argmax(-1))) == []


def test_values_that_differ_in_the_last_bit_are_no_equals():
    value = torch.tensor([1.0, 1.0 + 2.0**-23, 0.5])
    off = lambda func, args, kwargs: func(*args, **kwargs) * 0  # noqa: E731
    assert wrong(observed("argmax", off, lambda: value.argmax(-1))) == [("aten.argmax.default", "result")]


@pytest.mark.parametrize("run", [lambda value: value.max(), lambda value: value.max(0), lambda value: value.sort()])
def test_the_largest_integer_is_judged_whichever_of_equals_it_is(run):
    def more(func, args, kwargs):
        made = func(*args, **kwargs)
        return made + 1 if isinstance(made, torch.Tensor) else (made[0] + 1, made[1])

    for name in ("max", "sort"):
        ranking = observed(name, more, lambda: run(torch.tensor([2, 2, 1])))
        assert len(wrong(ranking)) == (name in ranking.ranked()[0].operator)


def test_an_integer_result_that_is_left_out_is_listed():
    def other(func, args, kwargs):
        values, indices = func(*args, **kwargs)
        return values, indices.flip(-1)

    ranking = observed("topk", other, lambda: torch.zeros(6).topk(2))
    assert wrong(ranking) == []
    assert [row.operator for row in ranking.unjudged()] == ["aten.topk.default"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_error_beside_a_mask_of_the_largest_number_is_found_and_a_right_one_passes(precision):
    torch.manual_seed(0)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    masked = torch.ones(4, 4).triu(1).bool()
    scores, mask = (
        torch.randn(2, 4, 4).to(kind),
        torch.zeros(4, 4, dtype=kind).masked_fill(masked, torch.finfo(kind).min),
    )

    def off(func, args, kwargs):
        return torch.where(masked, func(*args, **kwargs), func(*args, **kwargs) * 1.1)

    def unmasked(func, args, kwargs):
        return func(*args, **kwargs).masked_fill(masked, 0.0)

    run = lambda: scores + mask  # noqa: E731
    assert wrong(observed("none", None, run, precision=precision)) == []
    assert wrong(observed("add", off, run, precision=precision)) == [("aten.add.Tensor", "result")]
    assert wrong(observed("add", unmasked, run, precision=precision)) == [("aten.add.Tensor", "result")]


def test_the_worst_element_is_neither_a_mask_nor_a_choice_among_equals():
    scores = torch.tensor([1.0, 2.0, torch.finfo(torch.float32).min])

    def off(func, args, kwargs):
        return func(*args, **kwargs) + torch.tensor([0.0, 0.5, 0.0])

    (row,) = observed("exp2", off, scores.exp2).ranked()
    assert (row.index, row.value, row.truth) == ((1,), 4.5, 4.0)
    row = observed("mul", off, lambda: scores * 1.0).ranked()[0]
    assert (row.index, row.value, row.truth) == ((1,), 2.5, 2.0)

    # What is NaN in both is equal.
    row = observed("log", off, torch.tensor([-1.0, 1.0, 1.0]).log).ranked()[0]
    assert (row.index, row.value, row.truth) == ((1,), 0.5, 0.0)

    def other(func, args, kwargs):
        values, _ = func(*args, **kwargs)
        return values, torch.tensor([5, 1])

    row = observed("max", other, lambda: torch.tensor([[0.0, 0, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0]]).max(1)).ranked()[0]
    assert (row.result, row.index, row.value, row.truth) == ("result.1", (1,), 1.0, 0.0)


def test_a_mask_that_is_infinite_in_a_shorter_type_is_judged():
    mask = torch.tensor([0.0, 0.5, torch.finfo(torch.float32).min])
    cast = lambda: mask.to(torch.bfloat16)  # noqa: E731
    ranking = observed("none", None, cast, precision="bf16")
    assert (wrong(ranking), ranking.unjudged()) == ([], ())
    ranking = observed("_to_copy", lambda func, args, kwargs: func(*args, **kwargs) * 1.1, cast, precision="bf16")
    assert (wrong(ranking), ranking.unjudged()) == ([("aten._to_copy.default", "result")], ())


def truncated(func, args, kwargs):
    made = func(*args, **kwargs)
    if (args[0].dtype, made.dtype) != (torch.float32, torch.bfloat16):
        return made
    return (args[0].contiguous().view(torch.int32) & ~0xFFFF).view(torch.float32).to(torch.bfloat16)


def test_a_cast_that_drops_bits_is_proven_to_be_the_cause_in_any_precision():
    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 5)

        def forward(self, value):
            return self.linear(value.bfloat16().to(self.linear.weight.dtype))

    def prepare(candidate):
        replace_operator(candidate, ("_to_copy",), truncated)

    torch.manual_seed(0)
    batch = {"image": torch.randn(64, 64), "label": torch.randint(0, 5, (64,))}
    _, found = explained(prepare, trained(Cast(), batch))
    assert (found.conclusion, found.cause) == (PROVEN, ("aten._to_copy.default",))
    cast = batch["image"].bfloat16
    assert wrong(observed("_to_copy", truncated, cast, precision="bf16")) == [("aten._to_copy.default", "result")]
    assert wrong(observed("none", None, cast)) == []


def test_what_lies_in_memory_that_is_only_written_to_does_not_matter():
    old = torch.full((3,), math.nan)

    def run():
        old.clone().copy_(torch.ones(3))
        old.clone().fill_(2.0)
        old.clone().zero_()
        torch.exp(torch.ones(3), out=old.clone())
        torch.addmm(old, torch.ones(2, 4), torch.ones(4, 3), beta=0)

    ranking = observed("copy_", lambda func, args, kwargs: func(*args, **kwargs).mul_(1.001), run)
    assert {row.operator for row in ranking.ranked()} >= {
        *("aten.copy_.default", "aten.fill_.Scalar", "aten.zero_.default", "aten.exp.out", "aten.addmm.default"),
    }
    assert wrong(ranking) == [("aten.copy_.default", "self")]
    assert {row.operator for row in ranking.unjudged()} == {"aten.clone.default"}


def test_an_operator_that_sees_no_nan_in_a_nan_is_wrong_and_one_that_got_nothing_else_is_listed():
    value = torch.tensor([1.0, math.nan])

    def run():
        torch.where(value.isnan(), 0.0, value)

    ranking = observed("isnan", lambda func, args, kwargs: func(*args, **kwargs) & False, run, probed=True)
    assert wrong(ranking) == [("aten.isnan.default", "result")]
    assert [(row.operator, row.why) for row in ranking.unjudged()] == [("aten.where.self", "its inputs hold NaN")]


@pytest.mark.parametrize("swallows", [False, True])
def test_a_nan_that_one_part_of_a_complex_number_is_made_of_has_not_vanished_from_the_other_one(swallows):
    value = torch.randn(3, 8)
    value[1, 4] = math.nan
    change = (lambda func, args, kwargs: func(*args, **kwargs).nan_to_num(0.0)) if swallows else None
    ranking = observed("_fft_r2c" if swallows else "none", change, lambda: torch.fft.rfft(value), probed=True)
    assert wrong(ranking) == [("aten._fft_r2c.default", "result")] * swallows


def test_a_wrong_kernel_that_cannot_read_every_memory_layout_is_found():
    torch.manual_seed(0)
    query, name = torch.randn(1, 2, 3, 8), "_scaled_dot_product_flash_attention_for_cpu"
    attend = lambda: F.scaled_dot_product_attention(query, query, query)  # noqa: E731
    off = lambda func, args, kwargs: (func(*args, **kwargs)[0] * 1.001, func(*args, **kwargs)[1])  # noqa: E731
    assert wrong(observed(name, off, attend)) == [(f"aten.{name}.default", "result.0")]

    value, name = torch.randn(1, 2, 8, 8, requires_grad=True), "fractional_max_pool2d_backward"
    pool = lambda: F.fractional_max_pool2d(value, 2, 4).square().sum().backward()  # noqa: E731
    off = lambda func, args, kwargs: func(*args, **kwargs) * 1.001  # noqa: E731
    assert wrong(observed(name, off, pool)) == [(f"aten.{name}.default", "result")]


def test_complex_terms_that_cancel_are_judged_without_a_warning():
    torch.manual_seed(0)
    value = torch.randn(8, dtype=torch.complex64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranking = observed(
            "sum", lambda func, args, kwargs: func(*args, **kwargs) + 1e-3, lambda: torch.cat([value, -value]).sum()
        )
    assert wrong(ranking) == [("aten.sum.default", "result")]


def test_what_comes_and_goes_is_no_proof():
    calls = []

    def prepare(candidate):
        scaled("convolution", 4e-6)(candidate)

        def change(module, args, output):
            calls.append(1)
            return output * 1.01 if len(calls) <= 3 else output

        candidate.model.stem.register_forward_hook(change)

    _, found = explained(prepare, modules="stem", limits=Limits(isolated=60.0))
    assert [trial.passes for trial in found.trials] == [True, True]
    assert (found.conclusion, found.cause) == (UNREPEATED, ())
    assert found.message.endswith("so what is wrong there comes and goes, and no cause is shown")


def test_a_gradient_that_comes_through_modules_within_modules_is_repeated():
    result = audited(
        trained_net(), broken("max_pool2d_with_indices", lambda made: (made[0], (made[1] + 1) % 64)), **QUICK
    )
    found = result.operators.explanations[0]
    assert (result.module, found.scope) == ("(model)", "(model)")
    assert found.ratio == max(error.ratio for error in result.errors)
    assert (found.conclusion, found.cause) == (PROVEN, ("aten.max_pool2d_with_indices.default",))


def test_a_module_alone_is_compared_in_as_many_tensors_as_among_all_others():
    options = {"evaluation": False, "end_to_end": False}
    every, one = (audited(trained_net(), **options, modules=modules) for modules in (None, "(model)"))
    assert [e.tensor for e in one.errors if e.module == "(model)"] == [
        e.tensor for e in every.errors if e.module == "(model)"
    ]


def test_the_sentence_of_an_unproven_cause_reads_well():
    class Twice(nn.Module):
        def forward(self, value):
            return value.exp()

    def both(candidate):
        scaled("exp")(candidate)
        candidate.model[1].register_forward_hook(lambda *call: call[-1] + 0.5 * call[-1].roll(1, -1))

    torch.manual_seed(0)
    subject = trained(
        nn.Sequential(nn.Linear(4, 4), Twice()), torch.randn(5, 4), lambda model, batch: model(batch).square().mean()
    )
    _, found = explained(both, subject)
    assert ", so that is not shown to be the cause" in found.message
    assert "so so" not in found.message


def test_what_is_wrong_and_does_not_matter_is_no_part_of_the_cause():
    class Three(nn.Module):
        def forward(self, value):
            value.detach().cosh()
            return value.tanh() * value.sigmoid()

    def three(candidate):
        for name, by in (("tanh", 0.1), ("cosh", 0.05), ("sigmoid", 0.01)):
            scaled(name, by)(candidate)

    torch.manual_seed(0)
    subject = trained(
        nn.Sequential(nn.Linear(4, 4), Three()), torch.randn(5, 4), lambda model, batch: model(batch).square().mean()
    )
    _, found = explained(three, subject, modules="1")
    assert [row.operator for row in found.wrong] == ["aten.tanh.default", "aten.cosh.default", "aten.sigmoid.default"]
    assert (found.conclusion, set(found.cause)) == (PROVEN, {"aten.tanh.default", "aten.sigmoid.default"})


def test_what_a_cast_makes_of_a_number_that_no_integer_can_be_is_not_judged():
    value = torch.tensor([1.0, math.inf, -1e30, 2.0])

    def otherwise(func, args, kwargs):
        return torch.where(args[0].abs() > 1e18, 7, func(*args, **kwargs))

    ranking = observed("_to_copy", otherwise, value.long)
    assert (wrong(ranking), ranking.chose) == ([], {})
    off = lambda func, args, kwargs: func(*args, **kwargs) + 1  # noqa: E731
    for each in (value, torch.arange(5.0)):
        assert wrong(observed("_to_copy", off, each.long)) == [("aten._to_copy.default", "result")]


def test_of_two_results_the_one_that_overflows_is_listed_and_the_other_one_judged():
    value = torch.tensor([1e30, -1e30, 3e29])
    run = lambda: torch.var_mean(value, 0)  # noqa: E731
    for change, found in (
        (lambda func, args, kwargs: func(*args, **kwargs), []),
        (lambda func, args, kwargs: (func(*args, **kwargs)[0], value[2]), [("aten.var_mean.correction", "result.1")]),
    ):
        ranking = observed("var_mean", change, run)
        assert wrong(ranking) == found
        assert [row.operator for row in ranking.unjudged()] == ["aten.var_mean.correction"]


@pytest.fixture
def one_thread():
    """The CPU sums with one thread, whose rounding is what the figures of a test rest on."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_sum_in_float32_has_the_limit_of_float32_where_the_network_computes_in_16_bits():
    torch.manual_seed(0)
    value = torch.randn(1 << 20)

    def in_lanes(func, args, kwargs):
        lanes = torch.zeros(256)
        for each in args[0].view(-1, 256):
            lanes = lanes + each
        return func(lanes, **kwargs)

    observer = Observer(CPU, Precision(name="bf16"), limit=1e-3, limit_in_float32=30.0)
    with ReplacedOperator(("sum",), in_lanes), observer:
        value.sum()
        value.bfloat16().tanh()
    rows = {row.operator: row for row in observer.ranking.ranked()}
    assert (rows["aten.sum.default"].limit, rows["aten.tanh.default"].limit) == (30.0, 1e-3)
    assert 10.0 < rows["aten.sum.default"].ratio <= 30.0


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("floor", lambda value: value.floor()),
        *((name, lambda value, name=name: getattr(value, name)()) for name in ("ceil", "trunc", "frac")),
        ("round", lambda value: (value + 0.5).round()),
        *((name, lambda value, name=name: getattr(value, name)(1.0)) for name in ("fmod", "remainder", "floor_divide")),
        ("histc", lambda value: value.histc(8, 1.0, 9.0)),
        ("floor_", lambda value: value.clone().floor_()),
        ("_foreach_floor_", lambda value: torch._foreach_floor_([value.clone()])),
        ("div_", lambda value: value.clone().div_(1.0, rounding_mode="floor")),
        (
            "fake_quantize_per_tensor_affine_cachemask",
            lambda value: torch.fake_quantize_per_tensor_affine(value + 0.5, 1.0, 0, 0, 255),
        ),
    ],
)
def test_a_last_bit_that_would_make_a_step_is_not_tried(name, run):
    def off(func, args, kwargs):
        made = func(*args, **kwargs)
        for tensor in args[0] if name.startswith("_foreach") else [made[0] if isinstance(made, tuple) else made]:
            tensor.add_(0.01)
        return made

    assert len(wrong(observed(name, off, lambda: run(torch.arange(1.0, 10.0))))) == 1


def test_a_module_that_fails_by_another_choice_among_equals_is_said_to_do_so():
    def last(func, args, kwargs):
        value = args[0]
        values, indices = func(value.flip(-1, -2), *args[1:], **kwargs)
        return values.flip(-1, -2), (value[0, 0].numel() - 1 - indices).flip(-1, -2)

    def prepare(candidate):
        replace_operator(candidate, ("max_pool2d_with_indices",), last)

    _, found = explained(prepare, modules="(model)")
    assert (found.scope, found.wrong) == ("(model)", ())
    assert found.message.endswith(
        "among equal values aten.max_pool2d_with_indices.default chose others than the CPU does, as any device may, "
        "and that may be all of it"
    )
