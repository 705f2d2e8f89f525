"""A sum of terms that cancel may be exact in the reference by luck, which no other order of the terms has to be."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import emacheck  # noqa: E402
from emacheck.audit.arithmetic.precision import Precision  # noqa: E402
from emacheck.audit.faults.places import ReplacedOperator  # noqa: E402
from emacheck.audit.iteration.subject import Subject  # noqa: E402
from emacheck.audit.judging.candidate import judge  # noqa: E402
from emacheck.audit.judging.reference import Plan, Reference  # noqa: E402
from emacheck.audit.lockstep.variations import PLAIN, Variation  # noqa: E402

# Integers, so that every order of them is exact: their sum is 1, and a rounding error of the largest term 6e-5.
TERMS = torch.tensor([1000.0, -999.0, 500.0, -500.0]).reshape(4, 1)
ROUNDING_OF_THE_LARGEST = 2.0**-24 * 1000


def cancelling(model, batch):
    return (model(batch) * TERMS).sum()


def audit_of_a_sum_off_by(error, *, outputs=1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, outputs))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def off(function, args, kwargs):
        found = function(*args, **kwargs)
        return found + error if found.shape == (1, outputs) else found

    def prepare(candidate):
        candidate.around.append(lambda: ReplacedOperator(("sum",), off))

    batch = torch.rand(4, 3)
    return emacheck.audit_step(model, optimizer, batch, cancelling, "cpu", prepare=prepare, end_to_end=False)


@pytest.mark.parametrize("roundings", [-2.0, 1.0, 4.0])
def test_a_number_that_is_off_by_what_the_last_bits_of_its_terms_do_passes(roundings):
    assert audit_of_a_sum_off_by(roundings * ROUNDING_OF_THE_LARGEST).outcome is emacheck.Outcome.PASS


def test_a_number_that_is_off_by_much_more_fails():
    result = audit_of_a_sum_off_by(1000 * ROUNDING_OF_THE_LARGEST)
    assert result.outcome is emacheck.Outcome.FAIL
    assert (result.findings[0].module, result.findings[0].tensor) == ("2", "gradient bias")


def test_many_numbers_are_never_all_right_by_luck():
    # Each of these sums is off as above, in which a single one passes.
    assert audit_of_a_sum_off_by(4 * ROUNDING_OF_THE_LARGEST, outputs=8).outcome is emacheck.Outcome.FAIL


@pytest.mark.parametrize("labels", ["compared", "cut"])
def test_last_bits_of_labels_kept_as_floats_excuse_no_loss(labels):
    torch.manual_seed(0)
    # Labels from 1 on, for zero has no last bit.
    batch = torch.rand(8, 3), torch.tensor([1.0, 3.0, 1.0, 2.0, 1.0, 3.0, 2.0, 1.0])

    def loss(model, batch):
        logits, label = model(batch[0]), batch[1]
        one_hot = torch.stack([label == each for each in range(4)], 1) if labels == "compared" else None
        return nn.functional.cross_entropy(logits, label.long() if one_hot is None else one_hot.to(logits))

    def prepare(candidate):
        right = candidate.loss
        # The value is off, the gradient is not.
        candidate.loss = lambda *args: (found := right(*args)) + 0.01 * found.detach()

    result = emacheck.audit_step(nn.Linear(3, 4), None, batch, loss, "cpu", prepare=prepare, end_to_end=False)
    assert (result.outcome, result.module) == (emacheck.Outcome.FAIL, "(loss)")


def small_classifier(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    batch = torch.randn(4, 6), torch.tensor([0, 1, 2, 1])
    return Subject(model=model, optimizer=None, loss=lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1])), batch


def over_in_a_whole_iteration(seed, variation, *, precision="bf16", spoil=None):
    """What is over its limit in a whole iteration of a small network that computes in a variation."""
    subject, batch = small_classifier(seed)
    plan = Plan(precision=Precision(name=precision), modules="none", evaluation=False)
    candidate, reference = subject.twin(), Reference(subject=subject, batch=batch, plan=plan)
    if spoil:
        spoil(candidate)
    judged = judge(reference, candidate, variation=variation)
    assert not judged.troubles
    return [error for error in judged.errors if not error.passes]


def test_no_small_network_fails_in_16_bits_because_its_loss_is_right_by_luck():
    over = [over_in_a_whole_iteration(seed, Variation(rounding=1000 + seed)) for seed in range(30, 40)]
    assert [each for each in over if each] == []


@pytest.mark.parametrize("size", [0.05, -0.05, float("nan")])
def test_a_loss_that_is_off_by_more_than_any_rounding_fails_in_16_bits(size):
    def spoil(candidate):
        right = candidate.loss
        candidate.loss = lambda *args: (found := right(*args)) + size * found.detach()

    for seed in range(5):
        over = over_in_a_whole_iteration(seed, PLAIN, spoil=spoil)
        assert {error.phase for error in over} == {"loss"}


def over_in_a_gradient_of_integers(inputs, roundings):
    """What is over its limit where a weight's gradient, which bfloat16 holds exactly, is off by so many roundings."""
    model = nn.Sequential(nn.Linear(inputs, 1, bias=False))
    subject = Subject(model=model, optimizer=None, loss=lambda m, b: m(b).sum())
    plan = Plan(precision=Precision(name="bf16"), evaluation=False, end_to_end=False, modules="0")
    candidate = subject.twin()

    def off(function, args, kwargs):
        found = function(*args, **kwargs)
        return found * (1 + roundings * 2.0**-8) if found.shape == (1, inputs) else found

    candidate.around.append(lambda: ReplacedOperator(("mm",), off))
    judged = judge(Reference(subject=subject, batch=torch.full((3, inputs), 2.0), plan=plan), candidate)
    assert not judged.troubles
    return [error.tensor for error in judged.errors if not error.passes]


@pytest.mark.parametrize(("inputs", "roundings", "over"), [(1, 2, False), (4, 2, False), (1, 24, True), (16, 2, True)])
def test_only_a_gradient_of_few_numbers_may_be_off_by_a_rounding_to_16_bits_that_the_reference_did_not_need(
    inputs, roundings, over
):
    found = over_in_a_gradient_of_integers(inputs, roundings)
    assert found == (["gradient weight"] if over else [])
