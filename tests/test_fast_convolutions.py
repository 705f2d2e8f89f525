"""The fast convolutions that the audit is tried with compute what a convolution computes."""

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def fast():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import fast_convolutions
    finally:
        sys.path.remove(str(BENCHMARKS))
    return fast_convolutions


@pytest.mark.parametrize("shape", [(2, 3, 16, 32), (1, 2, 7, 9), (2, 1, 1, 5)])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_a_fast_convolution_and_its_gradients_are_those_of_the_plain_one_in_float64(fast, shape, dilation):
    torch.manual_seed(0)

    def gradients(algorithm):
        convolution = torch.nn.Conv2d(shape[1], 4, 3, padding=dilation, dilation=dilation, dtype=torch.float64)
        with torch.no_grad():
            for at, each in enumerate(convolution.parameters()):
                each.copy_(torch.sin(torch.arange(each.numel()) + at).reshape(each.shape))
        value = torch.cos(torch.arange(torch.Size(shape).numel(), dtype=torch.float64)).reshape(shape).requires_grad_()
        if algorithm is None:
            output = convolution(value)
            (output**2).sum().backward()
        else:
            replaced = fast.FastConvolutions(algorithm)
            with replaced.around():
                output = convolution(value)
                (output**2).sum().backward()
            assert replaced.calls == 2
        return [output, value.grad, *(each.grad for each in convolution.parameters())]

    plain = gradients(None)
    for algorithm in fast.ALGORITHMS:
        for found, expected in zip(gradients(algorithm), plain, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settings", [{"stride": 2}, {"groups": 2}, {"padding": 0}, {"kernel_size": 1, "padding": 0}])
def test_other_convolutions_stay_as_they_are(fast, settings):
    convolution = torch.nn.Conv2d(4, 4, **{"kernel_size": 3, "padding": 1, **settings})
    value = torch.ones(1, 4, 8, 8)
    replaced = fast.FastConvolutions(fast.ALGORITHMS[1])
    with replaced.around():
        found = convolution(value)
    assert replaced.calls == 0
    assert torch.equal(found, convolution(value))
