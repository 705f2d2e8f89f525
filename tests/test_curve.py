"""A curve: numbers that are checked when it is made, and cannot be changed."""

import copy
import math
import pickle
import warnings
from decimal import Decimal

import numpy as np
import pytest

import emacheck


def loss(iterations, values, **known):
    return emacheck.Curve(name="loss", iterations=iterations, values=values, **known)


def test_a_curve_refuses_what_is_not_a_curve():
    for iterations, values in (([1, 1], [1, 2]), ([2, 1], [1, 2]), ([1], [1, 2]), ([[1]], [[1]])):
        with pytest.raises(emacheck.EmacheckError, match="curve 'loss': "):
            loss(iterations, values)
    with pytest.raises(ValueError, match="read-only"):
        loss([1], [1]).values[0] = 2


@pytest.mark.parametrize(
    ("iterations", "found"),
    [
        ([1.2, 2.7, 3.9], "1.2 at position 0"),
        (np.array([math.nan, 1, 2]), "nan at position 0"),
        ([1, 2, math.inf], "inf at position 2"),
        (np.array([1, 2, 2**63 + 5], dtype=np.uint64), "9223372036854775813 at position 2"),
        ([1, 2, Decimal("2.5")], "2.5 at position 2"),
        ([1, 2, 2**64], "too large"),
        (np.array(["2031-02-03", "2031-02-04", "2031-02-05"], dtype="datetime64[D]"), "M8"),
        (None, "NoneType"),
    ],
)
def test_iterations_that_are_no_whole_numbers_are_refused_and_never_cut(iterations, found):
    with pytest.raises(emacheck.EmacheckError, match=f"curve 'loss': iterations.*{found}"):
        loss(iterations, [4.0, 3.9, 3.8])


@pytest.mark.parametrize(
    "values",
    [
        np.ma.array([4.0, 3.9, 3.8], mask=[False, True, False]),
        np.array([4.0 + 1j, 3.9, 3.8]),
        np.array([1, 2, 3], dtype="timedelta64[s]"),
        {1: 4.0, 2: 3.9, 3: 3.8},
        ["4.0", "3.9", "?"],
        [4.0, 3.9, 10**400],
        (value for value in (4.0, 3.9, 3.8)),
    ],
)
def test_values_that_would_become_other_numbers_are_refused(values):
    with pytest.raises(emacheck.EmacheckError, match="curve 'loss': values: "):
        loss([1, 2, 3], values)


@pytest.mark.parametrize("known", [{"window": math.nan}, {"window": 2.5}, {"window": "10"}, {"quantum": math.inf}])
def test_a_window_that_is_no_count_and_a_quantum_without_end_are_refused(known):
    with pytest.raises(emacheck.EmacheckError, match=f"curve 'loss': {next(iter(known))} must be"):
        loss([1], [4.0], **known)


def test_a_curve_is_made_of_what_libraries_hold_without_a_warning():
    torch = pytest.importorskip("torch")
    pandas = pytest.importorskip("pandas")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of_torch = loss(torch.arange(1, 4), torch.tensor([4.0, 3.5, 3.25]))
        of_pandas = loss(pandas.Series([1, 2, 3], index=[7, 8, 9]), pandas.Series([4.0, 3.5, 3.25]))
        of_decimals = loss([1.0, 2.0, 3.0], [Decimal("4"), Decimal("3.5"), Decimal("3.25")])
        with_a_gap = loss([1, 2], pandas.Series([4.0, None], dtype="Float64"))
    for each in (of_torch, of_pandas, of_decimals):
        assert (each.iterations.tolist(), each.values.tolist()) == ([1, 2, 3], [4.0, 3.5, 3.25])
    assert math.isnan(with_a_gap.values[1])


def test_a_tensor_that_numpy_cannot_hold_says_how_to_give_its_numbers():
    torch = pytest.importorskip("torch")
    for values in (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, requires_grad=True), [torch.ones(1).sum()] * 2):
        given = values if isinstance(values, torch.Tensor) else [each.requires_grad_() for each in values]
        with pytest.raises(emacheck.EmacheckError, match=r"loss\.item\(\), or losses\.detach\(\)"):
            loss([1, 2], given)


def test_copies_of_a_curve_cannot_be_changed_either():
    curve = loss([1, 2], [4.0, 3.5], window=10, quantum=1e-4)
    for same in (copy.copy(curve), copy.deepcopy(curve), pickle.loads(pickle.dumps(curve))):  # noqa: S301
        assert (same.name, same.window, same.quantum) == ("loss", 10, 1e-4)
        assert same.values.tolist() == [4.0, 3.5]
        assert not same.values.flags.writeable
        assert not same.iterations.flags.writeable
