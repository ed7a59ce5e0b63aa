"""Stablecoin deleveraging: the published table, the closed form against a search, spirals and their end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcontagion import NotSettledError, SchemaError, Status
from netcontagion.margining import stablecoin_deleveraging

REFERENCES = json.loads((Path(__file__).parent / "references" / "price_formation.json").read_text(encoding="utf-8"))
CASE = next(case for case in REFERENCES["cases"] if case["name"] == "stablecoin_spiral_table1")


def published(case):
    inputs = case["inputs"]
    path = stablecoin_deleveraging(
        inputs["price_eth"],
        inputs["demand"],
        collateral=inputs["n0"],
        supply=inputs["L0"],
        factor=inputs["beta"],
        growth=inputs["r"],
        hold=inputs["hold"],
    )
    return {"delta": path.change, "supply": path.supply, "price": path.price, "eth": path.collateral}


def far(case, factor=1.0):
    found, limits = published(case), {"price": "abs_price", "eth": "abs_eth"}
    return [
        name
        for name, values in case["expected"].items()
        if any(
            value is not None and abs(ours - value * factor) > case["tolerance"][limits.get(name, "abs")]
            for ours, value in zip(found[name], values, strict=True)
        )
    ]


def test_the_published_table():
    assert far(CASE) == []
    assert set(far(CASE, 1.02)) == set(CASE["expected"])


def test_the_exact_path_behind_the_table():
    np.testing.assert_allclose(published(CASE)["supply"][1:], [97.4727, 93.3660, 88.7975], atol=5e-5)


# a search for the best supply, written from the statement of the problem ----------------------------------------------


def searched(n, p, d, old, r, beta):
    """Most profitable supply on a fine grid of those that meet the constraint, refined; None where none does."""
    grid = np.geomspace(1e-3, 1e3, 100_001) * old

    def held(new):
        return (n + (new - old) * d / (new * p)) * p

    allowed = held(grid) >= beta * grid
    if not allowed.any():
        return None
    best = grid[allowed][np.argmax(r * held(grid[allowed]) - grid[allowed])]
    step = grid[1] / grid[0]
    fine = best * np.linspace(1 / step, step, 20_001)
    fine = fine[held(fine) >= beta * fine]
    return float(fine[np.argmax(r * held(fine) - fine)]) if len(fine) else float(best)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.5, 4.0),
    st.floats(20, 200),
    st.floats(20, 200),
    st.floats(20, 200),
    st.floats(0.9, 1.2),
    st.floats(1, 2),
)
def test_the_closed_form_is_the_best_supply(n, p, d, old, r, beta):
    path = stablecoin_deleveraging([p], [d], collateral=n, supply=old, factor=beta, growth=r, strict=False)
    best = searched(n, p, d, old, r, beta)
    room = (n * p + d) ** 2 - 4 * beta * d * old
    if best is None:
        assert room < 1e-4 * (n * p + d) ** 2
        if room < 0:
            assert path.status is Status.NO_SOLUTION
            assert path.supply.size == 0
        return
    assert path.status is Status.SETTLED
    new = path.supply[0]
    assert new == pytest.approx(best, rel=3e-4)
    assert path.collateral[0] * p >= beta * new * (1 - 1e-9)
    assert path.price[0] == pytest.approx(d / new)
    assert path.constrained[0] == (abs(new - np.sqrt(r * d * old)) > 1e-9 * new)
    assert path.collateral[0] == pytest.approx(n + path.change[0] * path.price[0] / p)


def test_the_spiral_makes_each_coin_dearer():
    falls = 83.0 * 0.992 ** np.arange(6)
    path = stablecoin_deleveraging(falls, np.full(6, 100.0), collateral=1.8, supply=100.583, growth=1.00583)
    assert path.constrained.all()
    assert (np.diff(path.price) > 0).all()
    assert (np.diff(path.supply) < 0).all()
    value = path.collateral * falls
    np.testing.assert_allclose(value, 1.5 * path.supply, rtol=1e-9)


def test_the_end_is_reported():
    prices = [85.0, 60.0, 40.0, 85.0]
    with pytest.raises(NotSettledError, match="period 1") as caught:
        stablecoin_deleveraging(prices, 100.0, collateral=1.8, supply=100.583)
    path = caught.value.result
    assert path.status is Status.NO_SOLUTION
    assert path.supply.size == path.price.size == path.collateral.size == 1
    same = stablecoin_deleveraging(prices, 100.0, collateral=1.8, supply=100.583, strict=False)
    assert same.supply.tolist() == path.supply.tolist()


def test_an_issuer_that_holds_does_nothing():
    path = stablecoin_deleveraging([85.0, 10.0], [100.0, 50.0], collateral=1.8, supply=100.0, hold=True)
    assert path.supply.tolist() == [100.0, 100.0]
    assert path.price.tolist() == [1.0, 0.5]
    assert path.collateral.tolist() == [1.8, 1.8]


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 99))
def test_the_currency_of_the_collateral_does_not_matter(factor, seed):
    """Coins at face value are money: prices, demand and supply scale together, units of collateral do not."""
    rng = np.random.default_rng(seed)
    prices, demand = rng.uniform(80, 120, 5), rng.uniform(90, 110, 5)
    plain = stablecoin_deleveraging(prices, demand, collateral=2.5, supply=100.0, strict=False)
    scaled = stablecoin_deleveraging(
        prices * factor, demand * factor, collateral=2.5, supply=100.0 * factor, strict=False
    )
    np.testing.assert_allclose(scaled.supply, plain.supply * factor, rtol=1e-9)
    np.testing.assert_allclose(scaled.collateral, plain.collateral, rtol=1e-9)
    np.testing.assert_allclose(scaled.price, plain.price, rtol=1e-9)


def test_bad_numbers_are_refused_all_together():
    with pytest.raises(SchemaError) as caught:
        stablecoin_deleveraging([85.0, np.nan], [100.0, 0.0], collateral=-1.0, supply=0.0, factor=0.5)
    assert {problem.column for problem in caught.value.problems} == {
        "collateral_price",
        "demand",
        "collateral",
        "supply",
        "factor",
    }
