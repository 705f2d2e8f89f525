"""The sums of accelerators that the audit is tried with are those sums."""

import shutil
import sys
from fractions import Fraction
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def units():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import matrix_units
    finally:
        sys.path.remove(str(BENCHMARKS))
    return matrix_units


@pytest.mark.parametrize(
    "settings",
    [{}, {"stride": 2}, {"dilation": 2, "padding": 2}, {"kernel_size": 1, "padding": 0}, {"stride": 2, "padding": 0}],
)
@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_a_convolution_and_its_gradients_are_those_of_float64_but_for_rounding(units, settings, size):
    convolution = torch.nn.Conv2d(3, 5, **{"kernel_size": 3, "padding": 1, **settings})
    value = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))

    def gradients(dtype, unit):
        module = torch.nn.Conv2d(3, 5, **{"kernel_size": 3, "padding": 1, **settings}).to(dtype)
        module.load_state_dict(convolution.state_dict())
        given = value.clone().to(dtype).requires_grad_()
        replaced = units.MatrixUnit(unit=unit)
        with replaced.around():
            output = module(given)
            (output**2).sum().backward()
        assert replaced.calls == (0 if dtype is torch.float64 else 2)
        return [output, given.grad, *(each.grad for each in module.parameters())]

    exact = gradients(torch.float64, units.Unit(at_once=1))
    for unit in (units.Unit(at_once=1, towards_zero=False), units.Unit(at_once=8, bits=25)):
        for found, expected in zip(gradients(torch.float32, unit), exact, strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_matrix_products_of_all_kinds_are_summed_by_the_unit(units):
    left, right = torch.randn(2, 4, 6), torch.randn(2, 6, 3)
    replaced = units.MatrixUnit(unit=units.Unit(at_once=8))
    with replaced.around():
        found = [left[0] @ right[0], left @ right, torch.addmm(torch.ones(3), left[0], right[0])]
    assert replaced.calls == 3
    for each, plain in zip(found, [left[0] @ right[0], left @ right, 1 + left[0] @ right[0]], strict=True):
        torch.testing.assert_close(each, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("at_once", "bits", "towards_zero", "expected"),
    [
        (1, 0, False, Fraction(1)),  # each half unit in the last place is a tie, and goes to the even one
        (2, 0, False, 1 + Fraction(1, 2**23)),  # two of them at once are a whole one
        (2, 0, True, 1 + Fraction(1, 2**23)),
        (2, 24, True, Fraction(1)),  # each is cut off before they are added
        (2, 25, True, 1 + Fraction(1, 2**23)),
        (1, 0, True, Fraction(1)),
    ],
)
def test_small_addends_are_kept_or_lost_as_the_unit_says(units, at_once, bits, towards_zero, expected):
    # The accumulator is 1 after the first terms, of which all but one are 0.
    addends = [1.0] + [0.0] * (at_once - 1) + [2.0**-24, 2.0**-24]
    unit = units.MatrixUnit(unit=units.Unit(at_once=at_once, bits=bits, towards_zero=towards_zero))
    found = unit.product(torch.tensor([addends]), torch.ones(len(addends), 1))
    assert Fraction(found.item()) == expected


@pytest.mark.parametrize("beside", [0.0, 1.0])
@pytest.mark.parametrize("bits", [0, 25])
def test_a_nan_stays_one(units, bits, beside):
    unit = units.MatrixUnit(unit=units.Unit(at_once=8, bits=bits))
    assert unit.product(torch.tensor([[beside, float("nan")]]), torch.ones(2, 1)).isnan().all()


def test_factors_are_cut_to_the_bits_that_tf32_has(units):
    cut = units.cut_mantissa(torch.tensor([1 + 2.0**-10 + 2.0**-11, -1 - 2.0**-11, float("inf")]))
    assert cut.tolist() == [1 + 2.0**-10, -1.0, float("inf")]
