"""Errors travel between processes with everything they hold."""

from __future__ import annotations

import pickle

import pytest

import netcontagion as nc
from netcontagion.errors import DatasetError, NotSettledError, Problem, SchemaError, UnknownLabelError


def errors():
    problem = Problem("markets", "close_factor", 3, 1.5, "(0, 1]", "give a share")
    result = nc.clear(nc.generators.ring(4, seed=1))
    return [
        SchemaError([problem, problem]),
        UnknownLabelError("ETX", ["ETH", "BTC"], "asset"),
        NotSettledError("cascade: MAX_ROUNDS", result),
        DatasetError("no data"),
    ]


@pytest.mark.parametrize("place", range(4))
def test_an_error_is_the_same_after_a_journey(place):
    error = errors()[place]
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.args == error.args
    assert vars(copy).keys() == vars(error).keys()
    if isinstance(error, SchemaError):
        assert copy.problems == error.problems
    if isinstance(error, UnknownLabelError):
        assert copy.near == ["ETH"]
    if isinstance(error, NotSettledError):
        assert copy.result.payments.tolist() == error.result.payments.tolist()
