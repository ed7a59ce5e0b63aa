"""The loop that every solver and the cascade run in: each way it can end."""

from __future__ import annotations

import math

import pytest

from netcontagion._iterate import iterate
from netcontagion._status import Status


def test_ends_with_the_status_of_the_step():
    ending = iterate(lambda x: (x / 2, x / 2, Status.SETTLED if x < 1 else None), 8.0, max_rounds=50)
    assert (ending.state, ending.rounds, ending.status, ending.residual) == (0.25, 5, Status.SETTLED, 0.25)


def test_stops_at_max_rounds_with_the_last_residual():
    ending = iterate(lambda x: (x + 1, 1.0 / (x + 1), None), 0, max_rounds=4)
    assert (ending.state, ending.rounds, ending.status, ending.residual) == (4, 4, Status.MAX_ROUNDS, 0.25)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("status", [None, Status.SETTLED])
def test_a_residual_that_is_no_number_ends_it_whatever_the_step_says(wrong, status):
    ending = iterate(lambda x: (x + 1, 1.0 if x < 2 else wrong, None if x < 2 else status), 0, max_rounds=10)
    assert (ending.state, ending.rounds, ending.status) == (3, 3, Status.NONFINITE)


def test_stalls_after_as_many_steps_without_a_lower_residual_as_patience_allows():
    residuals = [3.0, 2.0, 2.0, 1.0, 1.0, 1.5, 1.0, 0.5]

    def step(x):
        return x + 1, residuals[x], None

    ending = iterate(step, 0, max_rounds=8, patience=3)
    assert (ending.rounds, ending.status, ending.residual) == (7, Status.STALLED, 1.0)
    assert iterate(step, 0, max_rounds=8).status is Status.MAX_ROUNDS
    assert iterate(step, 0, max_rounds=8, patience=4).status is Status.MAX_ROUNDS


def test_a_step_that_grows_without_bound_is_caught_when_it_overflows():
    ending = iterate(lambda x: (x * 1e100, x * 1e100, None), 1.0, max_rounds=50)
    assert ending.status is Status.NONFINITE
    assert ending.rounds == 4
    assert math.isinf(ending.residual)
