"""A curve: numbers that are checked when it is made, and cannot be changed."""

import pytest

import emacheck


def test_a_curve_refuses_what_is_not_a_curve():
    for iterations, values in (([1, 1], [1, 2]), ([2, 1], [1, 2]), ([1], [1, 2]), ([[1]], [[1]])):
        with pytest.raises(ValueError, match="loss"):
            emacheck.Curve(name="loss", iterations=iterations, values=values)
    with pytest.raises(ValueError, match="read-only"):
        emacheck.Curve(name="loss", iterations=[1], values=[1]).values[0] = 2
