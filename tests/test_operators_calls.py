"""Single calls of operators: which are judged, and on what."""

import math
from contextlib import suppress

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402, N812

from emacheck.audit.arithmetic.precision import Precision  # noqa: E402
from emacheck.audit.faults.places import ReplacedOperator  # noqa: E402
from emacheck.audit.iteration.signature import unread, why_not  # noqa: E402
from emacheck.audit.operators.called import Called, differing, unseen  # noqa: E402
from emacheck.audit.operators.observer import Observer  # noqa: E402
from emacheck.audit.operators.replaced_on_cpu import OnCpu  # noqa: E402

CPU = torch.device("cpu")
aten = torch.ops.aten


def test_an_operator_that_the_cpu_cannot_repeat_is_listed_and_never_called_right():
    library = torch.library.Library("emacheck_tests", "DEF")
    library.define("short_only(Tensor x) -> Tensor")

    def short_only(value):
        if value.dtype is torch.float64:
            raise NotImplementedError("there is no such kernel for float64")
        return value * 2

    library.impl("short_only", short_only, "CPU")
    observer = Observer(CPU, Precision(), limit=30.0)
    with observer:
        torch.ops.emacheck_tests.short_only(torch.ones(3))
        torch.ones(3).exp()
    ranking = observer.ranking
    assert {row.operator for row in ranking.ranked()} == {"aten.ones.default", "aten.exp.default"}
    (unjudged,) = ranking.unjudged()
    assert unjudged.operator == "emacheck_tests.short_only.default"
    assert "no such kernel for float64" in unjudged.why
    library._destroy()


def test_an_operator_that_returns_no_tensor_is_listed():
    observer = Observer(CPU, Precision(), limit=30.0)
    with observer:
        assert torch.equal(torch.ones(2), torch.ones(2))
    (unjudged,) = observer.ranking.unjudged()
    assert (unjudged.operator, unjudged.why) == ("aten.equal.default", "it returns no tensor")


def test_what_draws_on_the_device_is_listed_and_what_is_drawn_on_the_cpu_is_not():
    observer = Observer(CPU, Precision(), limit=30.0)
    with observer:
        torch.multinomial(torch.ones(3), 1)
        torch.ones(3).uniform_()
    (unjudged,) = observer.ranking.unjudged()
    assert (unjudged.operator, unjudged.why) == ("aten.multinomial.default", "draws random numbers")


@pytest.mark.parametrize("probed", [True, False])
def test_a_call_of_a_probe_is_listed_only_if_no_other_call_of_its_operator_was_judged(probed):
    observer = Observer(CPU, Precision(), limit=30.0, probed=probed)
    with observer:
        torch.full((2,), math.nan).exp()
        torch.full((2,), math.nan).tanh()
        torch.ones(2).exp()
    listed = {each.operator for each in observer.ranking.unjudged()}
    assert listed == {"aten.tanh.default"} | (set() if probed else {"aten.exp.default"})


def test_an_operator_of_the_backward_pass_belongs_to_the_module_whose_forward_pass_asks_for_it():
    observer, value = Observer(CPU, Precision(), limit=30.0), torch.ones(3, requires_grad=True)
    with observer:
        observer.where.module = "first"
        middle = value.exp()
        observer.where.module = "second"
        out = middle.tanh().sum()
        observer.where.module = ""
        out.backward()
    rows = {row.operator: (row.module, row.phase) for row in observer.ranking.ranked()}
    assert rows["aten.exp.default"] == ("first", "forward")
    assert rows["aten.tanh_backward.default"] == ("second", "backward")
    assert rows["aten.mul.Tensor"] == ("first", "backward")


def test_a_call_that_writes_is_never_made_twice():
    made = []

    def wrong(func, args, kwargs):
        made.append(func)
        return func(*args, **kwargs).mul_(1.01)

    observer, value = Observer(CPU, Precision(), limit=30.0), torch.ones(2)
    with ReplacedOperator(("add_", "exp"), wrong), observer:
        value.add_(1.0)
        value.exp()
    found = {row.operator: row.repeats for row in observer.ranking.ranked() if not row.passes}
    assert found == {"aten.add_.Tensor": None, "aten.exp.default": True}
    assert [str(each) for each in made] == ["aten.add_.Tensor", "aten.exp.default", "aten.exp.default"]


def test_a_call_with_one_tensor_of_16_bits_has_the_limit_of_16_bits():
    observer = Observer(CPU, Precision(name="bf16"), limit=10.0, limit_in_float32=30.0)
    with observer:
        F.batch_norm(torch.randn(4, 3, 5).bfloat16(), torch.zeros(3), torch.ones(3), torch.ones(3), torch.ones(3))
        torch.ones(3).exp()
    limits = {row.operator: row.limit for row in observer.ranking.ranked()}
    assert (limits["aten.native_batch_norm.default"], limits["aten.exp.default"]) == (10.0, 30.0)


def test_an_integer_that_an_operator_of_a_vendor_makes_of_a_float_is_judged_unless_last_bits_decide_it():
    library = torch.library.Library("emacheck_tests", "DEF")
    library.define("whole(Tensor x) -> Tensor")
    library.impl("whole", lambda value: value.floor().long(), "CPU")

    def more(func, args, kwargs):
        return func(*args, **kwargs) + 1

    found = []
    for values in ([1.5, 2.25, -0.5], [1.0, 2.0, 3.0], []):
        observer = Observer(CPU, Precision(), limit=30.0)
        with ReplacedOperator(("whole",), more), observer:
            torch.ops.emacheck_tests.whole(torch.tensor(values))
        rows = [row.passes for row in observer.ranking.ranked() if row.operator.startswith("emacheck")]
        found.append((rows, len(observer.ranking.unjudged())))
    library._destroy()
    assert found == [([False], 0), ([], 1), ([True], 0)]


def test_views_memory_and_copies_are_not_judged_and_integers_are_compared_exactly():
    observer = Observer(CPU, Precision(), limit=30.0)
    with observer:
        value = torch.empty(4, 4).fill_(2.0)
        value.t().unsqueeze(0).view(1, 4, 2, 2).detach()
        value.new_empty(2).set_(aten.lift(aten._unsafe_view(value, [16]))).resize_(32).resize_as_(value).is_pinned()
        (value > 1).sum()
    assert {row.operator for row in observer.ranking.ranked()} == {
        "aten.fill_.Scalar",
        "aten.gt.Scalar",
        "aten.sum.default",
    }
    assert observer.ranking.unjudged() == ()

    def off_by_one(func, args, kwargs):
        return func(*args, **kwargs) + 1

    observer, five = Observer(CPU, Precision(), limit=30.0), torch.arange(5)
    with ReplacedOperator(("sum",), off_by_one), observer:
        five.sum()
    (row,) = [row for row in observer.ranking.ranked() if not row.passes]
    assert (row.operator, row.measure, row.value, row.truth) == ("aten.sum.default", "exact", 11.0, 10.0)


def test_only_what_a_device_computes_is_judged_on_it():
    there, here, one = torch.ones(2, device="meta"), torch.ones(2), torch.ones(())
    of_one = torch.ones((), device="meta")
    judged = (
        (aten.mul.Tensor, (there, one), {}),
        (aten.mul.Tensor, (of_one, one), {}),
        (aten.copy_.default, (there, there), {}),
        (aten.copy_.default, (there, one), {}),
        (aten._to_copy.default, (there,), {"dtype": torch.float64}),
        (aten.arange.default, (3,), {"device": torch.device("meta")}),
        (aten.native_dropout.default, (there, 0.0, True), {}),
    )
    passed_over = (
        (aten.mul.Tensor, (here, here), {}, "not on the device"),
        (aten.mul.Tensor, (here, of_one), {}, "not on the device"),
        (aten.arange.default, (3,), {"device": None}, "not on the device"),
        (aten.copy_.default, (there, here), {}, "a copy between devices"),
        (aten._to_copy.default, (here,), {"device": torch.device("meta")}, "a copy between devices"),
        (aten._local_scalar_dense.default, (of_one,), {}, "a copy between devices"),
        (aten.uniform_.default, (there,), {}, "not on the device"),
        (aten.multinomial.default, (there, 1), {}, "draws random numbers"),
    )
    for func, args, kwargs in judged:
        assert why_not(func, args, kwargs, torch.device("meta")) is None, func
    for func, args, kwargs, why in passed_over:
        assert why_not(func, args, kwargs, torch.device("meta")) == why, func


def test_an_index_among_equals_is_not_judged():
    def other(func, args, kwargs):
        values, indices = func(*args, **kwargs)
        return values, indices.flip(-1)

    observer = Observer(CPU, Precision(), limit=30.0)
    with ReplacedOperator(("topk",), other), observer:
        torch.zeros(6).topk(2)
    assert all(row.passes for row in observer.ranking.ranked())
    observer = Observer(CPU, Precision(), limit=30.0)
    with ReplacedOperator(("topk",), other), observer:
        torch.arange(6.0).topk(2)
    assert [row.operator for row in observer.ranking.ranked() if not row.passes] == ["aten.topk.default"]


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("argmin", lambda value: value.argmin(-1)),
        *((name, lambda value, name=name: getattr(value, name)(-1)) for name in ("min", "max", "cummax", "cummin")),
        *(
            (name, lambda value, name=name: getattr(value, name)(-1))
            for name in ("median", "nanmedian", "mode", "sort")
        ),
        ("argsort", lambda value: value.argsort(-1)),
        ("kthvalue", lambda value: value.kthvalue(2)),
        ("adaptive_max_pool2d", lambda value: F.adaptive_max_pool2d(value.clone().requires_grad_(), 4)),
        ("adaptive_max_pool3d", lambda value: F.adaptive_max_pool3d(value.clone().requires_grad_(), 4)),
        ("max_pool3d_with_indices", lambda value: F.max_pool3d(value.clone().requires_grad_(), 2)),
        ("fractional_max_pool2d", lambda value: F.fractional_max_pool2d(value.clone().requires_grad_(), 2, 4)),
        ("fractional_max_pool3d", lambda value: F.fractional_max_pool3d(value.clone().requires_grad_(), 2, 4)),
    ],
)
def test_every_operator_that_chooses_may_choose_any_of_equal_values_and_no_other_one(name, run):
    def other(func, args, kwargs):
        made = func(*args, **kwargs)
        indices = made if isinstance(made, torch.Tensor) else made[1]
        # The largest so far is not one that is still to come.
        indices += -indices if name.startswith("cum") else torch.where(indices == 0, 1, -1)
        return made

    names = (name, "sort") if name == "argsort" else (name,)
    # So many values that the last bits of few do not tell as well.
    shape = (2, 2, 8, 8, 8)
    distinct = (torch.arange(2048.0) * 37 % 2048).reshape(shape)
    for value, found in ((torch.ones(shape), 0), (distinct, 1)):
        observer = Observer(CPU, Precision(), limit=30.0)
        with ReplacedOperator(names, other), observer:
            run(value[0] if name.endswith("2d") else value)
        assert [row.passes for row in observer.ranking.ranked()].count(False) == found


def test_operators_that_write_to_what_they_are_given_are_judged_on_what_was_there_before():
    observer = Observer(CPU, Precision(), limit=30.0)
    value, out = torch.arange(4.0), torch.empty(4)
    mean, variance = torch.zeros(3), torch.ones(3)
    with observer:
        value.add_(1.0).mul_(3.0)
        torch.exp(value, out=out)
        F.batch_norm(torch.randn(4, 3, 5), mean, variance, training=True)
        torch._foreach_add_([value, out], 1.0)
    rows = observer.ranking.ranked()
    assert {row.operator for row in rows} >= {"aten.add_.Tensor", "aten.mul_.Tensor", "aten._foreach_add_.Scalar"}
    assert all(row.ratio <= 3 for row in rows), rows
    assert value.tolist() == [4.0, 7.0, 10.0, 13.0]


def test_what_was_in_memory_before_it_is_overwritten_does_not_matter():
    observer, value = Observer(CPU, Precision(), limit=30.0), torch.full((3,), math.nan)
    with observer:
        value.fill_(2.0)
        value.copy_(torch.ones(3))
        value.mul_(math.nan).zero_()
        torch._foreach_copy_([value.mul_(math.nan)], [torch.ones(3)])
        torch._foreach_zero_([value.mul_(math.nan)])
    rows = {row.operator: row for row in observer.ranking.ranked()}
    assert rows.keys() >= {"aten.fill_.Scalar", "aten.copy_.default"}
    assert [each.name for each in rows["aten.copy_.default"].inputs] == ["src"]
    assert observer.ranking.unjudged() == ()
    # By keyword as well, but read.
    assert unread(aten._fused_adam_.tensor_lr, {}) == frozenset()


def test_what_the_cpu_computes_takes_the_place_of_a_broken_result_in_place_and_in_lists():
    def wrong(func, args, kwargs):
        found = func(*args, **kwargs)
        for tensor in args[0] if isinstance(args[0], list | tuple) else [args[0]]:
            tensor.mul_(2.0)
        return found

    first, second = torch.ones(2), torch.ones(2)
    names = {"aten.add_.Tensor", "aten._foreach_add_.Scalar"}
    on_cpu = OnCpu(names, CPU, Precision())
    with ReplacedOperator(("add_", "_foreach_add_"), wrong), on_cpu:
        first.add_(1.0)
        torch._foreach_add_([first, second], 1.0)
    assert (first.tolist(), second.tolist(), on_cpu.calls) == ([3.0, 3.0], [2.0, 2.0], 2)


def test_a_call_that_the_cpu_knows_under_another_name_is_held_against_it():
    device, reference = Called(CPU), Called(CPU)
    value, ones, zeros = torch.randn(2, 3, 4), torch.ones(3), torch.zeros(3)
    with suppress(NotImplementedError), device:
        torch.ops.aten.cudnn_batch_norm(value, ones, zeros, zeros.clone(), ones.clone(), True, 0.1, 1e-2)
    with reference:
        torch.native_batch_norm(value, ones, zeros, zeros.clone(), ones.clone(), True, 0.1, 1e-5)
    assert differing(device, reference) == (
        "aten.native_batch_norm.default is called with eps=0.01, where the reference has eps=1e-05"
    )


def test_the_backward_of_a_batch_norm_that_computes_what_nobody_asked_for_is_no_other_call():
    device, reference = Called(CPU), Called(CPU)
    value, ones, zeros = torch.randn(2, 3, 4), torch.ones(3), torch.zeros(3)
    kept, saved = (ones, zeros, ones), (zeros, ones)
    with suppress(NotImplementedError), device:
        torch.ops.aten.cudnn_batch_norm_backward(value, value, *kept, *saved, 1e-5, torch.empty(0, dtype=torch.uint8))
    with reference:
        torch.ops.aten.native_batch_norm_backward(value, value, *kept, *saved, True, 1e-5, [True, False, False])
    assert (len(device.calls), differing(device, reference)) == (1, "")


def test_the_backward_of_a_softmax_that_writes_16_bits_is_no_other_call_than_that_of_the_reference():
    device, reference = Called(CPU), Called(CPU)
    made = torch.randn(2, 5).softmax(1)
    with suppress(RuntimeError), device:
        torch.ops.aten._softmax_backward_data(made, made, 1, torch.float16)
    with reference:
        torch.ops.aten._softmax_backward_data(made, made, 1, torch.float32)
    assert (len(device.calls), differing(device, reference)) == (1, "")


def test_an_operator_in_whose_place_none_shows_is_named_and_a_copy_instead_of_a_view_takes_no_place():
    device, reference = Called(CPU), Called(CPU)
    value = torch.randn(1, 2, 4, 4)
    with reference:
        # The reference converts what the device has kept in the other type.
        torch.nn.functional.max_pool2d(value.to(torch.float64), 2).clone()
    with device:
        torch.detach_copy(value).clone()
    assert unseen(device, reference) == "aten.max_pool2d_with_indices.default"
    with device:
        value.relu()
    assert unseen(device, reference) == ""
    assert unseen(reference, reference) == ""


def test_a_comparison_is_judged_beside_a_number_that_equals_a_rounded_scalar():
    value = torch.tensor([0.1, 0.2, -0.3])

    def otherwise(at):
        return lambda func, args, kwargs: func(*args, **kwargs) ^ torch.tensor([at == each for each in range(3)])

    for at, found in ((0, []), (1, [("aten.gt.Scalar", "result")]), (2, [("aten.gt.Scalar", "result")])):
        observer = Observer(CPU, Precision(), limit=30.0)
        with ReplacedOperator(("gt",), otherwise(at)), observer:
            value > 0.1  # noqa: B015
        wrong = [(row.operator, row.result) for row in observer.ranking.ranked() if not row.passes]
        assert (wrong, observer.ranking.unjudged()) == (found, ())


def test_an_index_of_a_device_that_lies_outside_ends_no_process_and_the_operator_that_made_it_is_wrong():
    def outside(func, args, kwargs):
        if "backward" in str(func):
            return torch.zeros_like(args[1])
        values, indices = func(*args, **kwargs)
        return values, indices + 10**9

    observer, value = Observer(CPU, Precision(), limit=30.0), torch.randn(1, 2, 8, 8, requires_grad=True)
    with ReplacedOperator(("max_pool2d_with_indices", "max_pool2d_with_indices_backward"), outside), observer:
        F.max_pool2d(value, 2).sum().backward()
    wrong = [(row.operator, row.result) for row in observer.ranking.ranked() if not row.passes]
    assert wrong == [("aten.max_pool2d_with_indices.default", "result.1")]
    (listed,) = observer.ranking.unjudged()
    assert listed.operator == "aten.max_pool2d_with_indices_backward.default"
    assert "one of its indices lies outside of its input" in listed.why
