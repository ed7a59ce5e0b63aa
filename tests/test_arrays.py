"""Array helpers: orders and digits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcontagion._arrays import leading_digits, order_by_digits

NUMBERS = st.lists(
    st.one_of(
        st.floats(allow_nan=False, allow_subnormal=False),
        st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-13, 1.0 - 1e-13, 1.0 + 1e-11, -1.0, np.inf, -np.inf]),
    ),
    max_size=40,
)


def plain_digits(values):
    """Round mantissas to 40 binary digits."""
    mantissa, exponent = np.frexp(values)
    with np.errstate(over="ignore"):
        return np.ldexp(np.rint(np.ldexp(mantissa, 40)), exponent - 40)


@given(NUMBERS)
def test_digits_are_those_of_rounded_mantissas(values):
    values = np.array(values, dtype=float)
    np.testing.assert_array_equal(leading_digits(values), plain_digits(values))


@given(NUMBERS)
def test_order_by_digits_is_a_stable_sort_of_rounded_values(values):
    values = np.array(values, dtype=float)
    order, same = order_by_digits(values)
    key = plain_digits(values)
    np.testing.assert_array_equal(order, np.argsort(key, kind="stable"))
    np.testing.assert_array_equal(same[1:], np.equal(key[order][1:], key[order][:-1]))
    assert not same[:1].any()


@pytest.mark.parametrize("span", [1.0, 1e-300, 1e300])
def test_values_of_any_span_are_ordered(span):
    values = np.random.default_rng(0).uniform(0.5, 1.0, 5_000)
    values[::7] *= span
    values[::11] = values[0]
    order, same = order_by_digits(values)
    np.testing.assert_array_equal(order, np.argsort(plain_digits(values), kind="stable"))
    assert same.sum() >= len(values[::11]) - 1
