"""Where a gradient may go to any of several equal values, no device is wrong."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from small_network import audited, trained  # noqa: E402
from torch import nn  # noqa: E402

from emacheck.audit.iteration.ties import without_ties  # noqa: E402
from emacheck.audit.lockstep.variations import Variation  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402

TYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("kind", TYPES)
@given(
    pool=st.builds(nn.MaxPool2d, st.integers(1, 4), stride=st.integers(1, 3), dilation=st.integers(1, 2)),
    values=st.sampled_from(["zeros", "signs", "normal"]),
    seed=st.integers(0, 2**31),
)
def test_no_window_holds_two_equal_values(kind, pool, values, seed):
    generator = torch.Generator().manual_seed(seed)
    made = {
        "zeros": torch.zeros(2, 3, 9, 11),
        "signs": torch.randint(-1, 2, (2, 3, 9, 11), generator=generator).float(),
        "normal": torch.randn(2, 3, 9, 11, generator=generator),
    }[values]
    value = without_ties(made.to(kind), pool)
    assert (value.shape, value.dtype) == (made.shape, kind)
    windows = F.unfold(value.float(), pool.kernel_size, stride=pool.stride, dilation=pool.dilation)
    windows = windows.view(2, 3, pool.kernel_size**2, -1).sort(dim=2).values
    assert bool((windows.diff(dim=2) > 0).all())


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        torch.zeros(2, 6, 4, 4)[:, 3:],
        torch.zeros(2, 3, 4, 4).transpose(2, 3),
    ],
    ids=["channels last", "a slice", "transposed"],
)
def test_an_input_without_ties_lies_in_memory_as_it_did(value):
    apart = without_ties(value, nn.MaxPool2d(2))
    assert apart.stride() == value.stride()
    assert (apart.storage_offset() > 0) is (value.storage_offset() > 0)


@pytest.mark.parametrize("value", [torch.zeros(1, 1, 1, 4).expand(1, 1, 4, 4), torch.zeros(1, 1, 10).unfold(2, 4, 2)])
def test_an_input_in_which_one_number_has_several_places_has_no_ties_either(value):
    assert without_ties(value, nn.MaxPool2d(2)).unique().numel() == 4


@given(
    size=st.one_of(st.integers(1, 6), st.tuples(st.integers(1, 6), st.one_of(st.none(), st.integers(1, 6)))),
    rows=st.integers(1, 13),
    columns=st.integers(1, 13),
)
def test_no_window_of_an_adaptive_pooling_holds_two_equal_values(size, rows, columns):
    pool = nn.AdaptiveMaxPool2d(size)
    value = without_ties(torch.zeros(1, 1, rows, columns), pool)
    first = pool(value)
    last = pool(value.flip(-1, -2)).flip(-1, -2)
    _, chosen = F.adaptive_max_pool2d(value, pool.output_size, return_indices=True)
    _, turned = F.adaptive_max_pool2d(value.flip(-1, -2), pool.output_size, return_indices=True)
    assert torch.equal(first, last)
    assert torch.equal(chosen, rows * columns - 1 - turned.flip(-1, -2))


@pytest.mark.parametrize("dimensions", [1, 3])
def test_adaptive_poolings_of_other_dimensions_have_no_ties_either(dimensions):
    pool = {1: nn.AdaptiveMaxPool1d, 3: nn.AdaptiveMaxPool3d}[dimensions](1)
    assert without_ties(torch.zeros(1, 1, *(4,) * dimensions), pool).unique().numel() == 4**dimensions


def test_an_input_that_is_not_finite_or_has_too_few_bits_stays_as_it_is():
    odd = torch.tensor([[[1.0, float("inf"), 0.0, 0.0]]])
    assert without_ties(odd, nn.MaxPool1d(2)) is odd
    short = torch.zeros(1, 1, 16, 16, dtype=torch.bfloat16)
    assert without_ties(short, nn.MaxPool2d(16)) is short
    assert without_ties(torch.zeros(1, 1, 8, 8, 8), nn.MaxPool3d((2, 1, 4))).unique().numel() == 8


class LastMaximum(nn.MaxPool2d):
    """Sends the gradient to the last of equal values, where torch sends it to the first."""

    def forward(self, value):
        return super().forward(value.flip(-1, -2)).flip(-1, -2)


class LastAdaptiveMaximum(nn.AdaptiveMaxPool2d):
    """Does the same, of windows of any size."""

    def forward(self, value):
        return super().forward(value.flip(-1, -2)).flip(-1, -2)


def pooled(pool=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), pool or nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 49, 5))
    batch = torch.randn(4, 3, 16, 16), torch.randint(0, 5, (4,))
    return trained(model, batch, lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]))


@pytest.mark.parametrize(
    ("pool", "other"), [(nn.MaxPool2d(2), LastMaximum(2)), (nn.AdaptiveMaxPool2d(7), LastAdaptiveMaximum(7))]
)
def test_a_device_that_chooses_another_of_equal_maxima_passes(pool, other):
    def replace_pool(candidate):
        candidate.model[2] = other

    assert audited(pooled(pool), replace_pool).outcome is Outcome.PASS


def test_a_pooling_gradient_that_is_wrong_is_still_found():
    def scale(candidate):
        candidate.model[2].register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 1.001,))  # noqa: ARG005

    result = audited(pooled(), scale)
    assert (result.outcome, result.module, result.phase) == (Outcome.FAIL, "2", "backward")


def test_a_change_in_the_last_bits_chooses_no_other_maximum():
    for seed in range(3):
        variation = Variation(last_bit=seed + 1, ulps=16)
        value = without_ties(torch.relu(torch.randn(2, 3, 16, 16)), nn.MaxPool2d(3, 2))
        _, before = F.max_pool2d(value, 3, 2, return_indices=True)
        _, after = F.max_pool2d(variation.nudged(value, seed=1), 3, 2, return_indices=True)
        assert torch.equal(before, after)


def test_a_window_of_zeros_stays_below_everything_else():
    value = torch.zeros(1, 1, 4, 4)
    value[0, 0, 0, 0] = 1.0
    assert float(without_ties(value, nn.MaxPool2d(2))[0, 0, 2:].max()) < 1e-5
