"""The gradient norm of the record is that of the gradients, and not of the order in which a device adds squares."""

import math

import pytest

torch = pytest.importorskip("torch")

from emacheck.train.recorder import sum_of_squares  # noqa: E402


def tensors():
    generator = torch.Generator().manual_seed(0)
    shapes = [(512, 512, 3, 3), (2048, 512), (19, 7), (1000,), (64,), (256,), (), (0, 3)]
    return [torch.randn(shape, generator=generator) * 10.0 ** -(at % 3) for at, shape in enumerate(shapes)]


def test_the_squares_of_millions_of_gradients_are_summed_to_eight_digits():
    exact = math.fsum(float(tensor.double().square().sum()) for tensor in tensors())
    assert sum_of_squares(tensors()) == pytest.approx(exact, rel=1e-8)


def test_gradients_in_another_memory_format_have_the_same_sum_of_squares():
    laid_out = [each.to(memory_format=torch.channels_last) if each.dim() == 4 else each for each in tensors()]
    halves = [each[::2] for each in tensors() if each.dim()]
    assert sum_of_squares(laid_out) == pytest.approx(sum_of_squares(tensors()), rel=1e-12)
    whole = [each.contiguous() for each in halves]
    assert sum_of_squares(halves) == pytest.approx(sum_of_squares(whole), rel=1e-9)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_one_gradient_that_is_not_finite_is_not_hidden(value):
    spoilt = tensors()
    spoilt[0][1, 2, 0, 1] = value
    assert not math.isfinite(sum_of_squares(spoilt))
