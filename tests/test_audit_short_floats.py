"""Sixteen bits: what rounding hides by its size does not hide in the slope."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from small_network import Net, audited, trained, trained_net  # noqa: E402

from emacheck.audit.arithmetic.measure import Truth, distance  # noqa: E402
from emacheck.audit.arithmetic.precision import Precision  # noqa: E402
from emacheck.audit.arithmetic.rounding import round_bits  # noqa: E402
from emacheck.audit.faults.loading import catalogue  # noqa: E402
from emacheck.audit.iteration.subject import Subject  # noqa: E402
from emacheck.audit.judging.candidate import judge  # noqa: E402
from emacheck.audit.judging.reference import Plan, Reference  # noqa: E402
from emacheck.audit.selftest.trials import benign_variations  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402

SHORT = {"bf16": torch.bfloat16, "fp16": torch.float16}


@given(st.floats(min_value=-(2.0**15), max_value=2.0**15, width=32).filter(lambda x: abs(x) > 2.0**-14))
@pytest.mark.parametrize("short", SHORT.values())
def test_dropping_bits_never_moves_a_value_away_from_zero_and_by_less_than_its_last_bit(short, value):
    rounded = round_bits(torch.tensor([value]), short, None).item()
    assert abs(rounded) <= abs(value) < abs(rounded) * (1 + torch.finfo(short).eps)


@pytest.mark.parametrize("short", SHORT.values())
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_stochastic_rounding_goes_up_as_often_as_the_value_lies_above(short, share):
    below, above = 1.0, 1.0 + torch.finfo(short).eps
    value = torch.full((100_000,), below + share * (above - below))
    rounded = round_bits(value, short, np.random.default_rng(0)).double()
    assert set(rounded.tolist()) == {below, above}
    up = float((rounded == above).double().mean())
    # Five standard deviations of a binomial share.
    assert abs(up - share) < 5 * math.sqrt(share * (1 - share) / value.numel())


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan, 0.0])
def test_what_is_no_finite_number_stays_so(odd):
    for generator in (None, np.random.default_rng(0)):
        rounded = round_bits(torch.full((100,), odd), torch.bfloat16, generator).double()
        assert torch.equal(rounded.nan_to_num(nan=7.0), torch.full((100,), odd).double().nan_to_num(nan=7.0))


@pytest.mark.parametrize("short", SHORT.values())
def test_rounding_to_the_nearest_cancels_in_the_slope_and_dropping_bits_does_not(short):
    exact = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    truth = Truth(tensor=exact)
    nearest = distance(exact.to(short), truth, slope=True)
    dropped = distance(round_bits(exact, short, None), truth, slope=True)
    chance = nearest.norm / math.sqrt(truth.values())
    assert nearest.slope < 5 * chance < dropped.slope / 20
    assert dropped.norm < 2.5 * nearest.norm


def test_equal_values_all_count_and_a_single_one_counts_alone():
    assert Truth(tensor=torch.full((10,), -3.0)).values() == pytest.approx(10)
    assert Truth(tensor=torch.tensor([0.0, 5.0, 0.0])).values() == 1
    assert Truth(tensor=torch.zeros(3)).values() == 1


def reference(precision):
    model, optimizer, batch, loss = trained_net()
    subject = Subject(model=model, optimizer=optimizer, loss=loss)
    return Reference(subject=subject, batch=batch, plan=Plan(precision=Precision(name=precision)), keep=True)


@pytest.mark.parametrize("precision", SHORT)
def test_a_device_that_drops_bits_fails_and_one_that_rounds_stochastically_passes(precision):
    held = reference(precision)
    broken = held.subject.twin()
    catalogue()["rounded_towards_zero"](broken)
    assert not all(error.passes for error in judge(held, broken).errors)
    for variation in benign_variations(12, precision=precision, first=1):
        errors = judge(held, held.subject.twin(), variation=variation).errors
        assert [error for error in errors if not error.passes] == [], str(variation)


def test_trials_in_sixteen_bits_differ():
    held = reference("bf16")
    said = set()
    for variation in benign_variations(8, precision="bf16", first=1):
        errors = judge(held, held.subject.twin(), variation=variation).errors
        said.add(tuple(error.error for error in errors if error.level == "isolated"))
    assert len(said) >= 7


class Decision(torch.nn.Module):
    def forward(self, value, samples):
        return F.cross_entropy(value, torch.stack([sample.truth._label for sample in samples]))


class Deciding(Net):
    def __init__(self):
        super().__init__()
        self.decide = Decision()


def test_labels_inside_of_objects_are_compared():
    torch.manual_seed(0)

    def samples(shift):
        return [SimpleNamespace(truth=SimpleNamespace(_label=torch.tensor((at + shift) % 5))) for at in range(4)]

    def shift(candidate):
        candidate.change_batch = lambda batch: {**batch, "samples": samples(1)}

    batch = {"image": torch.randn(4, 3, 16, 16), "samples": samples(0)}
    subject = trained(Deciding(), batch, lambda model, batch: model.decide(model(batch["image"]), batch["samples"]))
    assert audited(subject).outcome is Outcome.PASS
    result = audited(subject, shift)
    assert {error.tensor for error in result.errors if error.level == "isolated" and not error.passes} >= {
        f"input of decide 0.1.{at}.truth.label" for at in range(4)
    }


def test_a_result_that_is_too_large_everywhere_is_called_an_error_of_scale():
    held = reference("bf16")
    broken = held.subject.twin()
    broken.model.stem.register_forward_hook(lambda *call: call[-1] * (1 + 2.0**-7))
    of_the_output = [e for e in judge(held, broken).errors if (e.module, e.tensor) == ("stem", "output")]
    worst = max(of_the_output, key=lambda error: error.ratio)
    assert (worst.measure, worst.passes) == ("slope", False)
    assert worst.error == pytest.approx(2.0**-7, rel=0.1)
