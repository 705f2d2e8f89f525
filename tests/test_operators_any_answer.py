"""Where any device may answer otherwise than the CPU: values in no order, and several values for one place."""

import pytest

torch = pytest.importorskip("torch")

import emacheck  # noqa: E402
from emacheck.audit.arithmetic.precision import Precision  # noqa: E402
from emacheck.audit.faults.places import ReplacedOperator  # noqa: E402
from emacheck.audit.lockstep.any_answer import LeftOpen  # noqa: E402
from emacheck.audit.operators.observer import Observer  # noqa: E402

CPU = torch.device("cpu")


def second_first(at):
    """Return a device that writes what it is told to write, from an argument on, the last one first."""

    def change(func, args, kwargs):
        turned = [[each[0].flip(0)] if isinstance(each, list) else each.flip(0) for each in args[at:]]
        return func(*args[:at], *turned, **kwargs)

    return change


PLACES, VALUES = torch.tensor([0, 1, 1, 2]), torch.tensor([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("name", "change", "run"),
    [
        ("scatter", second_first(2), lambda places: torch.zeros(4).scatter(0, places, VALUES)),
        ("index_copy_", second_first(2), lambda places: torch.zeros(4).index_copy_(0, places, VALUES)),
        ("put_", second_first(1), lambda places: torch.zeros(4).put_(places, VALUES)),
        ("index_put_", second_first(1), lambda places: torch.zeros(4).index_put_((places,), VALUES)),
    ],
)
def test_which_of_several_values_stays_in_one_place_is_listed_and_never_called_wrong(name, change, run):
    def off(func, args, kwargs):
        return func(*args, **kwargs).mul_(1.01)

    for places, listed in ((PLACES, 1), (torch.arange(4), 0)):
        observer = Observer(CPU, Precision(), limit=30.0)
        with ReplacedOperator((name,), change), observer:
            run(places)
        assert all(row.passes for row in observer.ranking.ranked())
        assert len(observer.ranking.unjudged()) == listed
    observer = Observer(CPU, Precision(), limit=30.0)
    with ReplacedOperator((name,), off), observer:
        run(torch.arange(4))
    assert [row.operator.split(".")[1] for row in observer.ranking.ranked() if not row.passes] == [name]


def test_what_adds_up_or_writes_one_number_to_one_place_many_times_is_judged():
    def off(func, args, kwargs):
        return func(*args, **kwargs).mul_(1.01)

    observer = Observer(CPU, Precision(), limit=30.0)
    with ReplacedOperator(("index_put_", "scatter_", "put_"), off), observer:
        torch.zeros(4).index_put_((PLACES,), VALUES, accumulate=True)
        torch.zeros(4).scatter_(0, PLACES, 1.0)
        torch.zeros(4).put_(PLACES, VALUES, accumulate=True)
        torch.zeros(4)[PLACES] = 1.0
    assert {row.operator for row in observer.ranking.ranked() if not row.passes} == {
        *("aten.index_put_.default", "aten.scatter_.value", "aten.put_.default"),
    }
    assert observer.ranking.unjudged() == ()


@pytest.mark.parametrize(
    ("change", "found", "listed"),
    [
        (lambda values, indices: (values.flip(-1), indices.flip(-1)), [], ["aten.topk.default"]),
        (lambda values, indices: (values, indices.flip(-1)), ["aten.topk.default"], []),
        (lambda values, indices: (values[:, [0, 0, 1]], indices[:, [0, 0, 1]]), ["aten.topk.default"], []),
        (lambda values, indices: (values * 1.01, indices), ["aten.topk.default"], []),
    ],
)
def test_the_largest_values_may_come_in_any_order_where_none_is_asked_for(change, found, listed):
    torch.manual_seed(0)
    observer = Observer(CPU, Precision(), limit=30.0)
    with ReplacedOperator(("topk",), lambda func, args, kwargs: change(*func(*args, **kwargs))), observer:
        torch.randn(4, 9).topk(3, sorted=False)
    assert [row.operator for row in observer.ranking.ranked() if not row.passes] == found
    assert [row.operator for row in observer.ranking.unjudged()] == listed


TIED, APART = torch.tensor([[0.0, 1.0, 0.0, 2.0, 0.0]]), torch.tensor([[0.5, 1.0, 0.0, 2.0, -1.0]])


@pytest.mark.parametrize(
    ("run", "tied", "apart"),
    [
        (lambda x: x.sort(1), ["sort"], []),
        (lambda x: x.sort(0), [], []),
        (lambda x: x.sort(dim=1, stable=True), [], []),
        (lambda x: x.topk(3, 1), ["topk"], []),
        (lambda x: x.topk(2, 1), [], []),
        (lambda x: x.topk(2, 1, sorted=False), ["topk"], ["topk"]),
        (lambda x: x.median(1), ["median"], []),
        (lambda x: x.median(), [], []),
        (lambda x: x.kthvalue(2), ["kthvalue"], []),
        (lambda x: x.kthvalue(5, 1, keepdim=True), [], []),
        (lambda x: torch.zeros(3).put_(PLACES, x[0, :4]), ["put"], ["put"]),
    ],
)
def test_an_answer_is_left_open_where_values_are_equal_or_share_a_place(run, tied, apart):
    for value, expected in ((TIED, tied), (APART, apart)):
        watch = LeftOpen()
        with watch:
            run(value.clone())
        assert sorted(watch.found) == expected


class Sorted(torch.nn.Module):
    def __init__(self, stable):
        super().__init__()
        self.stable = stable

    def forward(self, value):
        return torch.sort(value, dim=1, stable=self.stable).values


@pytest.mark.parametrize("stable", [False, True])
def test_a_module_that_may_be_right_to_answer_otherwise_is_named_in_a_note(stable):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), Sorted(stable))

    def last_first(func, args, kwargs):
        values, places = func(args[0].flip(1), *args[1:], **kwargs)
        return values, 5 - places

    def prepare(candidate):
        candidate.around.append(lambda: ReplacedOperator(("sort",), last_first))

    def loss(model, batch):
        return (model(batch) * torch.arange(6.0).to(batch)).sum()

    result = emacheck.audit_step(model, None, torch.randn(5, 4), loss, "cpu", prepare=prepare, end_to_end=False)
    assert (result.outcome, result.module) == (emacheck.Outcome.FAIL, "2")
    named = [note for note in result.notes if note.startswith("2 (Sorted) is over a limit and runs sort, whose answer")]
    assert len(named) == (0 if stable else 1)
